// Any machine: vectors of four lanes, whatever the compiler makes of them. Every size and activation; owns all tails.
#include "engine.h"

namespace sepwise {
namespace {

struct Four : Vector<4> {
  SEPWISE_INLINE void keep(F&) {}
};

struct FloatKernel : FloatProducts<Four> {
  using V = Four;
  using Input = FloatInput<V>;
  using Mid = FloatTile<V>;
  using Output = FloatOutput<V>;
  static constexpr int columns = 4, rows = 4;
};

struct Bf16Kernel : FloatProducts<Four> {
  using V = Four;
  using Input = Bf16Input<V>;
  using Mid = RoundedTile<V>;
  using Output = Bf16Output<V>;
  static constexpr int columns = 4, rows = 4;
};

}  // namespace

extern const Kernel f32_portable =
    kernel_of<FloatKernel>("f32_portable", Isa::portable, Type::float32, Precision::highest);
extern const Kernel bf16_portable =
    kernel_of<Bf16Kernel>("bf16_portable", Isa::portable, Type::bfloat16, Precision::highest);

}  // namespace sepwise
