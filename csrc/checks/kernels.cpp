// Runs every kernel that this machine can run over the cases on stdin, each number compared with a plain loop, all
// memory between guards: a read or a write one byte outside of x, y, the weights or the scratch memory is seen.
//
//     kernels [FAULT] < cases       (csrc/checks/run writes the cases and builds this with all flags)
//
// One case a line: its name, then after a bar the integers of `read_case`. FAULT plants a mistake, "value", "fewer",
// "more", "x-early" or "y-early"; then the program succeeds if every kernel was seen to be wrong. On a machine with
// AVX-512 BF16 and without AMX, the AMX kernels run all the same: their tile instructions trap (tile_traps.h).
#include <signal.h>
#include <sys/wait.h>

#include <string>

#include "../cpu_features.h"
#include "../separable_conv2d/dispatch.h"
#include "host.h"
#include "naive.h"
#include "slab.h"
#include "tile_traps.h"

using namespace sepwise;

namespace {

struct Case {
  std::string name;
  Conv conv;
  bool bias, depthwise_bias, residual, gate;
};

bool read_case(Case& one) {
  char name[200];
  constexpr int count = 36;
  long v[count];
  int got = scanf(" %199[^|]|", name);
  for (int i = 0; got == i + 1 && i < count; i++) got += scanf("%ld", v + i) == 1;
  if (got == EOF) return false;
  if (got != count + 1) {
    fprintf(stderr, "a case is a name, a bar and %d integers; %d of these were read\n", count, got);
    exit(2);
  }
  one.name = name;
  one.conv = {.batch = v[0], .channels = v[1], .height = v[2], .width = v[3], .multiplier = v[4],
              .out_channels = v[5], .out_height = v[6], .out_width = v[7], .kernel_h = v[8], .kernel_w = v[9],
              .stride_h = v[10], .stride_w = v[11], .dilation_h = v[12], .dilation_w = v[13], .pad_top = v[14],
              .pad_left = v[15], .between = (Activation)v[16], .activation = (Activation)v[17], .expanded = v[20],
              .expand_h = v[27], .expand_w = v[28], .expand_stride_h = v[29], .expand_stride_w = v[30],
              .expand_top = v[31], .expand_left = v[32], .x_height = v[33], .x_width = v[34],
              .widening = (Activation)v[21], .normalized = v[22] != 0, .gathered = v[24] != 0, .bare = v[25] != 0,
              .pooled = v[35] != 0,
              .epsilon = 0.5f};
  one.bias = v[18], one.depthwise_bias = v[19], one.residual = v[23], one.gate = v[26];
  return true;
}

std::vector<double> small_integers(int64_t count) {
  static uint64_t state = 1;
  constexpr double values[] = {-2, -1, 1, 2};
  std::vector<double> numbers(count);
  for (double& number : numbers) {
    state = state * 6364136223846793005u + 1442695040888963407u;  // Knuth's MMIX generator
    number = values[state >> 62];
  }
  return numbers;
}

size_t bytes_of(Type type) { return type == Type::float32 ? 4 : 2; }

void write(char* to, int64_t index, double value, Type type) {
  const float number = (float)value;
  if (type == Type::float32)
    memcpy(to + index * 4, &number, 4);
  else
    memcpy(to + index * 2, (const char*)&number + 2, 2);  // small integers need no rounding; little-endian
}

float read(const char* from, int64_t index, Type type) {
  float number = 0;
  if (type == Type::float32)
    memcpy(&number, from + index * 4, 4);
  else
    memcpy((char*)&number + 2, from + index * 2, 2);
  return number;
}

std::unique_ptr<Slab> slab_of(const char* name, const std::vector<double>& numbers, Type type, Place place) {
  if (numbers.empty()) return nullptr;
  auto slab = std::make_unique<Slab>(name, numbers.size() * bytes_of(type), bytes_of(type), place);
  for (size_t i = 0; i < numbers.size(); i++) write(slab->data(), i, numbers[i], type);
  return slab;
}

std::string current;  // for the handler of signals

[[noreturn]] void on_fault(int, siginfo_t* info, void*) {
  fprintf(stderr, "%s: ", current.c_str());
  Slab::describe((const char*)info->si_addr);
  _exit(1);
}

bool complain(const char* problem) {
  fprintf(stderr, "%s: %s\n", current.c_str(), problem);
  return false;
}

struct Question {
  Numbers numbers;
  Expected expected;
};

Question question_of(const Case& one, const Kernel& kernel) {
  const Conv& conv = one.conv;
  Numbers numbers{small_integers(conv.in_pixels() * conv.in_channels()),
                  small_integers(conv.has_depthwise() ? conv.mid_channels() * conv.kernel_h * conv.kernel_w : 0),
                  small_integers(one.depthwise_bias ? conv.mid_channels() : 0),
                  small_integers(conv.bare ? 0 : conv.out_channels * conv.mid_channels()),
                  small_integers(one.bias && !conv.bare ? conv.out_channels : 0),
                  small_integers(conv.expanded * conv.channels * (conv.expand_h ? conv.expand_h * conv.expand_w : 1)),
                  small_integers(conv.expanded && one.bias ? conv.channels : 0),
                  small_integers(one.residual ? conv.out_pixels() * conv.out_channels : 0),
                  small_integers(one.gate ? conv.batch * conv.channels : 0)};
  Expected expected = naive(conv, numbers, kernel.type, kernel.precision);
  return {std::move(numbers), std::move(expected)};
}

bool check(const Conv& conv, const Question& question, const Kernel& kernel, Place place, const std::string& fault) {
  const auto& [numbers, expected] = question;
  const Type type = kernel.type;
  const size_t unit = bytes_of(type);

  const size_t packed_bytes = kernel.packed_bytes(conv);
  Slab packed("packed weights", packed_bytes, 64, place);
  {
    const auto depthwise = slab_of("depthwise", numbers.depthwise, type, place);
    const auto depthwise_bias = slab_of("depthwise bias", numbers.depthwise_bias, type, place);
    const auto pointwise = slab_of("pointwise", numbers.pointwise, type, place);
    const auto bias = slab_of("bias", numbers.bias, type, place);
    const auto expand = slab_of("expand", numbers.expand, type, place);
    const auto expand_bias = slab_of("expand bias", numbers.expand_bias, type, place);
    const auto data = [](const auto& slab) { return slab ? slab->data() : nullptr; };
    kernel.pack(conv, {data(depthwise), data(depthwise_bias), data(pointwise), data(bias), data(expand),
                       data(expand_bias)},
                packed.data());
  }
  const auto x = slab_of("x", numbers.x, type, place);
  if (fault == "value" && x) write(x->data(), numbers.x.size() / 2, 3, type);
  Slab y("y", conv.out_pixels() * conv.out_channels * unit, unit, place);

  const auto residual = slab_of("residual", numbers.residual, type, place);
  const auto gate = slab_of("gate", numbers.gate, type, place);
  Task task{conv, packed.data(), x ? x->data() : nullptr, y.data(), {host_parallel, host_threads, host_scratch},
            residual ? residual->data() : nullptr, gate ? gate->data() : nullptr};
  if (fault == "fewer") task.conv.batch -= 1;
  if (fault == "more") task.conv.batch += 1;
  if (fault == "x-early") task.x = (const char*)task.x - unit;
  if (fault == "y-early") task.y = (char*)task.y - unit;
  host_place = place;
  host_complaint = nullptr;
  kernel.run(task);

  if (host_complaint) return complain(host_complaint);
  if (!y.clean()) return complain("wrote outside of y");
  if (!packed.clean()) return complain("wrote outside of its packed weights");
  for (size_t i = 0; i < expected.y.size(); i++) {
    const float got = read(y.data(), i, type);
    if (!(fabs((double)got - expected.y[i]) <= expected.slack[i])) {
      char problem[120];
      snprintf(problem, sizeof problem, "element %zu is %.9g, expected %.9g +- %.2g", i, got, expected.y[i],
               expected.slack[i]);
      return complain(problem);
    }
  }
  return true;
}

// All cases; prints a line, returns whether all went well.
bool check_all(const Kernel& kernel, const std::vector<Case>& cases, const std::string& fault) {
#if defined(__SANITIZE_ADDRESS__)
  constexpr Place places[] = {Place::front, Place::back, Place::heap};
#else
  constexpr Place places[] = {Place::front, Place::back};
#endif
  int ran = 0, failed = 0;
  for (const Case& one : cases) {
    if (is_block(one.conv, one.residual) && !kernel.knows_blocks) continue;
    const Question question = question_of(one, kernel);
    for (Place place : places) {
      host_threads = place == Place::back ? 3 : 1;
      current = std::string(kernel.name) + ", " + one.name + ", memory at the " + name_of(place);
      ran++;
      failed += !check(one.conv, question, kernel, place, fault);
    }
  }
  printf("%-20s %d runs over %zu cases, %d runs wrong\n", kernel.name, ran, cases.size(), failed);
  return failed == 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string fault = argc > 1 ? argv[1] : "";
  struct sigaction action = {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGSEGV, &action, nullptr);
  sigaction(SIGBUS, &action, nullptr);

  std::vector<Case> cases;
  for (Case one; read_case(one);) cases.push_back(one);
  bool good = true;
  for (const Kernel* kernel : kernels()) {
    const std::string reason = why_not(*kernel);
    const bool traps = !reason.empty() && kernel->needs == Isa::amx && machine().permitted.has(Isa::avx512_bf16);
    if (!reason.empty() && !traps) {
      printf("%-20s skipped: %s\n", kernel->name, reason.c_str());
      continue;
    }
    fflush(stdout);
    const pid_t child = fork();  // a kernel that faults does not keep the next from being checked
    if (child == 0) {
      if (traps) tile_traps::install();
      const bool all_well = check_all(*kernel, cases, fault);
      if (traps) printf("%20s (%ld tile instructions answered in software)\n", "", tile_traps::answered.load());
      fflush(stdout);
      _exit(all_well ? 0 : 1);
    }
    int status = -1;
    waitpid(child, &status, 0);
    good = good && (status == 0) == fault.empty();
  }
  return good ? 0 : 1;
}
