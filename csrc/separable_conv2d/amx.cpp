// AMX on one bfloat16 number for each number: bfloat16 in and out, and float32 of medium precision. Sums are float32.
// Every size and activation; owns all tails. NaN and infinities go through as in any bfloat16 arithmetic.
#include "amx_engine.h"
#include "pairs.h"

namespace sepwise {
namespace {

struct Bf16Kernel : PairWeights {
  using V = SixteenPairs;
  using Input = Bf16Input<V>;
  using Mid = PairTile;
  using Output = Bf16Output<V>;
  static constexpr int columns = 8, parts = 1;
};

struct MediumKernel : PairWeights {
  using V = SixteenPairs;
  using Input = FloatInput<V>;
  using Mid = PairTile;
  using Output = FloatOutput<V>;
  static constexpr int columns = 8, parts = 1;
};

template <class C>
void run_amx(const Task& task) {
  run_tiles<C>(task, task.packed);
}

template <class C>
constexpr Kernel amx_kernel_of(const char* name, Type type, Precision precision) {
  return Kernel{name, Isa::amx, type, precision, Packed<C>::bytes, pack<C>, run_amx<C>, nullptr, false};
}

}  // namespace

extern const Kernel bf16_amx = amx_kernel_of<Bf16Kernel>("bf16_amx", Type::bfloat16, Precision::highest);
extern const Kernel medium_amx = amx_kernel_of<MediumKernel>("medium_amx", Type::float32, Precision::medium);

}  // namespace sepwise
