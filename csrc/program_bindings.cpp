// Programs as PyTorch sees them: made once of layers and sizes, run by their number.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <unordered_map>

#include "layer.h"
#include "program.h"

namespace sepwise {
namespace {

using torch::headeronly::MemoryFormat;

// What was read of weights when they were packed. Changes in place that PyTorch counts are known to whoever asks for the
// run; those that it does not count (of `.data`, by NumPy) change whole weights as a rule, and so these lines of memory.
struct Sample {
  static constexpr int64_t most = 64;
  const char* at;
  int64_t bytes;
  char content[most];

  Sample(const void* data, int64_t bytes) : at(static_cast<const char*>(data)), bytes(std::min(bytes, most)) {
    std::memcpy(content, at, this->bytes);
  }
  bool holds() const { return std::memcmp(content, at, bytes) == 0; }
  void come_nearer() const {
    __builtin_prefetch(at, 0, 2);
    __builtin_prefetch(this, 0, 2);
    __builtin_prefetch(reinterpret_cast<const char*>(this + 1) - 1, 0, 2);
  }
};

// A tensor as its owner has it, and the memory that it had.
struct Watched {
  Tensor tensor;
  const void* data;
  bool stays() const { return tensor.const_data_ptr() == data; }
};

struct Held {
  Program program;
  ScalarType type;
  std::vector<Tensor> weights;  // what samples point to, whatever becomes of the tensors that were given
  std::vector<Sample> samples;
  std::vector<Watched> watched;
  std::vector<const char*> objects;  // lines of memory that the caller looks at before it calls again
};

std::mutex mutex;
int64_t last_number = 0;
std::unordered_map<int64_t, std::shared_ptr<const Held>>& programs() {
  static std::unordered_map<int64_t, std::shared_ptr<const Held>> all;
  return all;
}

// Numbers of one step after another, read in the order in which `sepwise.ops.program` writes them.
class Reader {
 public:
  explicit Reader(const std::vector<int64_t>& numbers) : numbers_(numbers) {}
  bool at_end() const { return next_ == numbers_.size(); }
  int64_t one() {
    STD_TORCH_CHECK(next_ < numbers_.size(), "sepwise::make_program: the steps end too early");
    return numbers_[next_++];
  }
  Sizes some(int count) {
    Sizes found;
    for (int i = 0; i < count; i++) found.push_back(one());
    return found;
  }

 private:
  const std::vector<int64_t>& numbers_;
  size_t next_ = 0;
};

template <class E>
E named(int64_t number, E most) {
  STD_TORCH_CHECK(number >= 0 && number <= static_cast<int64_t>(most), "sepwise::make_program: unknown word ", number);
  return static_cast<E>(number);
}

Layer read_layer(Reader& reader, const std::vector<Tensor>& weights, const std::vector<double>& epsilons) {
  const auto weight = [&]() -> std::optional<Tensor> {
    const int64_t index = reader.one();
    return index < 0 ? std::nullopt : std::optional(weights.at(index));
  };
  Layer layer;
  layer.pointwise = weight(), layer.depthwise = weight(), layer.bias = weight();
  layer.depthwise_bias = weight(), layer.expand = weight(), layer.expand_bias = weight();
  layer.widening = named(reader.one(), last_activation);
  layer.between = named(reader.one(), last_activation);
  layer.activation = named(reader.one(), last_activation);
  const int64_t epsilon = reader.one();
  if (epsilon >= 0) layer.epsilon = epsilons.at(epsilon);
  layer.stride = reader.some(2), layer.padding = reader.some(4), layer.dilation = reader.some(2);
  layer.expand_stride = reader.some(2), layer.expand_padding = reader.some(4);
  layer.window = reader.some(2);
  layer.precision = named(reader.one(), Precision::medium);
  return layer;
}

Value value_of(const Tensor& x) {
  STD_TORCH_CHECK(x.dim() == 4, "sepwise::make_program: what is given needs four axes");
  return {x.size(0), x.size(2), x.size(3), x.size(1)};
}

bool same(const Value& a, const Value& b) {
  return a.batch == b.batch && a.height == b.height && a.width == b.width && a.channels == b.channels;
}

// `given`: tensors of the size and dtype that the program will be run with. `steps`: for each its source, residual and
// gate, whether it is a layer (1) or not (0), and the numbers of the layer. `objects`: addresses and bytes of what the caller
// looks at before it calls again; they may be stale. Returns the number of the program.
int64_t make_program(std::vector<Tensor> given, std::vector<Tensor> weights, std::vector<Tensor> watched,
                     std::vector<int64_t> steps, std::vector<double> epsilons, std::vector<int64_t> returned,
                     std::vector<int64_t> objects) {
  STD_TORCH_CHECK(!given.empty() && !returned.empty(), "sepwise::make_program: nothing is given, or nothing returned");
  const ScalarType type = given[0].scalar_type();
  std::vector<Value> values;
  for (const Tensor& x : given) {
    STD_TORCH_CHECK(x.scalar_type() == type, "sepwise::make_program: all that is given must have one dtype");
    values.push_back(value_of(x));
  }
  auto held = std::make_shared<Held>(Held{Program(type_of(type), std::move(values)), type, {}, {}, {}, {}});
  Program& program = held->program;
  for (Reader reader(steps); !reader.at_end();) {
    Step step;
    step.source = reader.one(), step.residual = reader.one(), step.gate = reader.one();
    STD_TORCH_CHECK(step.source >= 0 && std::max({step.source, step.residual, step.gate}) < program.values(),
                    "sepwise::make_program: a step reads a value that is not there yet");
    const Value x = program.value(step.source), gate{x.batch, 1, 1, x.channels};
    STD_TORCH_CHECK(step.gate < 0 || same(program.value(step.gate), gate),
                    "sepwise::make_program: a gate must have one number for each channel of each picture");
    Value result = step.gate < 0 ? gate : x;
    if (reader.one() != 0) {
      const Layer layer = read_layer(reader, weights, epsilons);
      const Conv& conv = step.conv = conv_of(layer, {x.batch, x.channels, x.height, x.width}, step.gate >= 0);
      result = {conv.batch, conv.out_height, conv.out_width, conv.out_channels};
      STD_TORCH_CHECK(step.residual < 0 || same(program.value(step.residual), result),
                      "sepwise::make_program: a residual must have the size of the result");
      STD_TORCH_CHECK((step.residual < 0 || !conv.bare) && (step.gate < 0 || conv.kernel_h == 0),
                      "sepwise::make_program: nothing is added without a pointwise step, nor gated before another one");
      step.kernel = &choose(conv, type_of(type), layer.precision, "", step.residual >= 0);
      step.weights = packed(layer, type, conv, *step.kernel);
    }
    program.add(std::move(step), result);
  }
  for (int64_t value : returned)
    STD_TORCH_CHECK(value >= program.given() && value < program.values(),
                    "sepwise::make_program: only results of steps can be returned");
  program.finish(std::move(returned));
  for (const Tensor& weight : weights) {
    held->weights.push_back(alias(weight));
    const int64_t bytes = weight.numel() * static_cast<int64_t>(weight.element_size());
    const char* data = static_cast<const char*>(weight.const_data_ptr());
    held->samples.emplace_back(data, bytes);
    if (bytes > Sample::most) held->samples.emplace_back(data + bytes - Sample::most, Sample::most);
  }
  for (const Tensor& tensor : watched) held->watched.push_back({tensor, tensor.const_data_ptr()});
  for (size_t i = 0; i + 1 < objects.size(); i += 2)
    for (int64_t line = objects[i] / 64; line * 64 < objects[i] + objects[i + 1]; line++)
      held->objects.push_back(reinterpret_cast<const char*>(line * 64));
  const std::lock_guard<std::mutex> lock(mutex);
  programs()[++last_number] = std::move(held);
  return last_number;
}

// What the program returns, in channels_last; nothing where weights are no longer what they were.
std::vector<Tensor> run_program(std::vector<Tensor> given, int64_t number) {
  std::shared_ptr<const Held> held;
  {
    const std::lock_guard<std::mutex> lock(mutex);
    const auto found = programs().find(number);
    STD_TORCH_CHECK(found != programs().end(), "sepwise::run_program: there is no program ", number);
    held = found->second;
  }
  for (const Watched& watched : held->watched)
    if (!watched.stays()) return {};
  for (const Sample& sample : held->samples)
    if (!sample.holds()) return {};
  const Program& program = held->program;
  STD_TORCH_CHECK(static_cast<int64_t>(given.size()) == program.given(), "sepwise::run_program: expected ",
                  program.given(), " tensors");
  std::vector<const void*> from;
  for (size_t i = 0; i < given.size(); i++) {
    STD_TORCH_CHECK(given[i].scalar_type() == held->type && same(value_of(given[i]), program.value(i)),
                    "sepwise::run_program: tensor ", i, " has another size or dtype than the program was made for");
    given[i] = laid_out(given[i]);
    from.push_back(given[i].const_data_ptr());
  }
  std::vector<Tensor> results;
  std::vector<void*> to;
  for (int64_t index : program.returned()) {
    const Value& value = program.value(index);
    const Size size = {value.batch, value.channels, value.height, value.width};
    results.push_back(torch::stable::empty({size.data(), size.size()}, held->type, std::nullopt, given[0].device(),
                                           std::nullopt, MemoryFormat::ChannelsLast));
    to.push_back(results.back().mutable_data_ptr());
  }
  const std::array memory_size = {static_cast<int64_t>(program.memory_bytes())};
  const Tensor memory = torch::stable::empty({memory_size.data(), 1}, ScalarType::Byte);
  program.run(from, to, memory.mutable_data_ptr(), host());
  // A call fills the caches with weights. What will be looked at before the next one comes back while Python goes on.
  for (const char* line : held->objects) __builtin_prefetch(line, 0, 2);
  for (const Watched& watched : held->watched) __builtin_prefetch(watched.tensor.get(), 0, 2);
  for (const Sample& sample : held->samples) sample.come_nearer();
  return results;
}

}  // namespace
}  // namespace sepwise

// Forgets a program; a number that is none of theirs does no harm. No operator: Python calls it whenever it collects
// garbage, and if that is while somebody traces a network, an operator would become a part of what is traced.
extern "C" __attribute__((visibility("default"))) void sepwise_drop_program(int64_t number) {
  using namespace sepwise;
  std::shared_ptr<const Held> dropped;  // goes after the lock: with a tensor may go an object of Python's
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = programs().find(number);
  if (found == programs().end()) return;
  dropped = std::move(found->second);
  programs().erase(found);
}

STABLE_TORCH_LIBRARY_FRAGMENT(sepwise, m) {
  m.def("make_program(Tensor[] given, Tensor[] weights, Tensor[] watched, int[] steps, float[] epsilons, "
        "int[] returned, int[] objects) -> int");
  m.def("run_program(Tensor[] given, int program) -> Tensor[]");
}

STABLE_TORCH_LIBRARY_IMPL(sepwise, CPU, m) {
  m.impl("make_program", TORCH_BOX(&sepwise::make_program));
  m.impl("run_program", TORCH_BOX(&sepwise::run_program));
}
