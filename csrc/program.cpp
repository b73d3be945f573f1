#include "program.h"

#include <algorithm>
#include <cstring>

#include "team.h"

namespace sepwise {
namespace {

constexpr size_t alignment = 64;

float number(const float* x) { return *x; }
float number(const uint16_t* x) {
  const uint32_t bits = static_cast<uint32_t>(*x) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
void put(float* y, float value) { *y = value; }
// To the nearest, ties to even; NaN stays NaN.
void put(uint16_t* y, float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  *y = value != value ? 0x7fc0 : static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// What a step without a kernel does to a value.
struct Simple {
  const Value* x;
  const void* from;
  void* to;
  const void* gate;
};

constexpr int64_t most_together = 256, in_registers = 32;

// The mean of `count` channels, which are IN_REGISTERS where that is not 0. Rows are summed by themselves first: many
// numbers in one sum would round badly.
template <class T, int64_t IN_REGISTERS>
void mean_of(const Value& value, const T* x, T* y, int64_t count) {
  float all[in_registers] = {}, line[in_registers];
  const int64_t some = IN_REGISTERS ? IN_REGISTERS : count;
  for (int64_t row = 0; row < value.height; row++) {
    std::fill(line, line + some, 0.0f);
    for (int64_t column = 0; column < value.width; column++, x += value.channels)
      for (int64_t c = 0; c < some; c++) line[c] += number(x + c);
    for (int64_t c = 0; c < some; c++) all[c] += line[c];
  }
  const float pixels = static_cast<float>(value.height * value.width);
  for (int64_t c = 0; c < some; c++) put(y + c, all[c] / pixels);
}

// A job: so many channels of one picture.
template <class T>
void mean_of_some(void* context, int64_t index) {
  const Simple& mean = *static_cast<Simple*>(context);
  const Value& value = *mean.x;
  const int64_t groups = (value.channels + most_together - 1) / most_together, image = index / groups;
  const int64_t begin = index % groups * most_together, end = std::min(begin + most_together, value.channels);
  const T* x = static_cast<const T*>(mean.from) + image * value.height * value.width * value.channels;
  T* y = static_cast<T*>(mean.to) + image * value.channels;
  int64_t c = begin;
  for (; c + in_registers <= end; c += in_registers) mean_of<T, in_registers>(value, x + c, y + c, in_registers);
  if (c < end) mean_of<T, 0>(value, x + c, y + c, end - c);
}

// A job: one row of one picture.
template <class T>
void scale_row(void* context, int64_t index) {
  const Simple& scale = *static_cast<Simple*>(context);
  const int64_t channels = scale.x->channels, width = scale.x->width;
  const T* x = static_cast<const T*>(scale.from) + index * width * channels;
  T* y = static_cast<T*>(scale.to) + index * width * channels;
  const T* gate = static_cast<const T*>(scale.gate) + index / scale.x->height * channels;
  for (int64_t column = 0; column < width; column++, x += channels, y += channels)
    for (int64_t c = 0; c < channels; c++) put(y + c, number(x + c) * number(gate + c));
}

// Pieces of memory that are in use, and the lowest place where another one fits.
class Places {
 public:
  size_t take(size_t bytes) {
    size_t at = 0;
    auto next = used_.begin();
    for (; next != used_.end() && next->at < at + bytes; ++next) at = std::max(at, next->at + next->bytes);
    used_.insert(next, {at, bytes});
    end_ = std::max(end_, at + bytes);
    return at;
  }
  void give_back(size_t at) {
    used_.erase(std::find_if(used_.begin(), used_.end(), [at](const Piece& piece) { return piece.at == at; }));
  }
  size_t end() const { return end_; }

 private:
  struct Piece {
    size_t at, bytes;
  };
  std::vector<Piece> used_;  // by place
  size_t end_ = 0;
};

}  // namespace

void Program::add(Step step, const Value& result) {
  steps_.push_back(std::move(step));
  values_.push_back(result);
}

void Program::finish(std::vector<int64_t> returned) {
  returned_ = std::move(returned);
  const int64_t steps = static_cast<int64_t>(steps_.size());
  std::vector<int64_t> last(values_.size(), -1);  // the step that reads a value last
  for (int64_t s = 0; s < steps; s++) {
    for (int64_t value : {steps_[s].source, steps_[s].residual, steps_[s].gate})
      if (value >= 0) last[value] = s;
  }
  places_.assign(values_.size(), 0);
  std::vector<bool> inside(values_.size(), false);
  Places places;
  for (int64_t s = 0; s < steps; s++) {
    const int64_t value = given_ + s;
    if (std::find(returned_.begin(), returned_.end(), value) == returned_.end()) {
      places_[value] = places.take((bytes(value) + alignment - 1) / alignment * alignment);
      inside[value] = true;
    }
    for (int64_t old = given_; old <= value; old++)
      if (inside[old] && (last[old] == s || (old == value && last[old] < 0))) {
        places.give_back(places_[old]);
        inside[old] = false;
      }
  }
  memory_bytes_ = places.end();
}

void Program::run(const std::vector<const void*>& given, const std::vector<void*>& returned, void* memory,
                  const Host& host) const {
  std::vector<const void*> at(values_.size(), nullptr);
  std::copy(given.begin(), given.end(), at.begin());
  for (size_t i = 0; i < returned.size(); i++) at[returned_[i]] = returned[i];
  for (size_t i = 0; i < values_.size(); i++)
    if (at[i] == nullptr) at[i] = static_cast<char*>(memory) + places_[i];
  Steps steps{this, std::move(at)};
  with_team(host, [](void* context, const Host& team) {
    const Steps& steps = *static_cast<Steps*>(context);
    steps.program->run_steps(steps.at, team);
  }, &steps);
}

void Program::run_steps(const std::vector<const void*>& at, const Host& host) const {
  for (size_t s = 0; s < steps_.size(); s++) {
    const Step& step = steps_[s];
    void* y = const_cast<void*>(at[given_ + s]);
    const void* gate = step.gate < 0 ? nullptr : at[step.gate];
    if (step.kernel == nullptr) {
      const Value& x = values_[step.source];
      const bool floats = type_ == Type::float32;
      Simple simple{&x, at[step.source], y, gate};
      if (gate != nullptr)
        host.parallel(x.batch * x.height, floats ? scale_row<float> : scale_row<uint16_t>, &simple);
      else
        host.parallel(x.batch * ((x.channels + most_together - 1) / most_together),
                      floats ? mean_of_some<float> : mean_of_some<uint16_t>, &simple);
      continue;
    }
    Task task{step.conv, step.weights->data(), at[step.source], y, host,
              step.residual < 0 ? nullptr : at[step.residual], gate};
    if (s + 1 < steps_.size() && steps_[s + 1].kernel != nullptr) {
      const Step& next = steps_[s + 1];
      task.soon = next.weights->data(), task.soon_bytes = next.kernel->packed_bytes(next.conv);
    }
    step.kernel->run(task);
  }
}

}  // namespace sepwise
