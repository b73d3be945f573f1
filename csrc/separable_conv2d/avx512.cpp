// AVX-512 without bfloat16 instructions: sixteen lanes. Every size and activation; owns all tails.
// bfloat16 is computed in float32.
#include "engine.h"
#include "sixteen.h"

namespace sepwise {
namespace {

struct FloatKernel : FloatProducts<Sixteen> {
  using V = Sixteen;
  using Input = FloatInput<V>;
  using Mid = FloatTile<V>;
  using Output = FloatOutput<V>;
  static constexpr int columns = 8, rows = 14;
};

struct Bf16Kernel : FloatProducts<Sixteen> {
  using V = Sixteen;
  using Input = Bf16Input<V>;
  using Mid = RoundedTile<V>;
  using Output = Bf16Output<V>;
  static constexpr int columns = 8, rows = 14;
};

}  // namespace

extern const Kernel f32_avx512 = kernel_of<FloatKernel>("f32_avx512", Isa::avx512, Type::float32, Precision::highest);
extern const Kernel bf16_avx512 = kernel_of<Bf16Kernel>("bf16_avx512", Isa::avx512, Type::bfloat16, Precision::highest);

}  // namespace sepwise
