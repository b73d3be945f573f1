// AVX-512 with bfloat16 dot products: a word is a pair of bfloat16 numbers, so the matrix step does twice the work of
// float32. Sums stay float32. Every size and activation; owns all tails.
#include "engine.h"
#include "pairs.h"
#include "row_pairs.h"

namespace sepwise {
namespace {

struct PairProducts : PairWeights {
  SEPWISE_INLINE Sixteen::F add_product(Sixteen::F sum, Sixteen::F word, Sixteen::F weight) {
    return _mm512_dpbf16_ps(sum, (__m512bh)word, (__m512bh)weight);
  }
};

struct Bf16Kernel : PairProducts {
  using V = SixteenPairs;
  using Input = InterleavedInput;
  using Mid = PairTile;
  using Rows = RowPairs;
  using Output = Bf16Output<V>;
  static constexpr int columns = 8, rows = 14;
};

// float32 in and out, products of numbers rounded to bfloat16.
struct MediumKernel : PairProducts {
  using V = SixteenPairs;
  using Input = FloatInput<V>;
  using Mid = PairTile;
  using Output = FloatOutput<V>;
  static constexpr int columns = 8, rows = 14;
};

}  // namespace

extern const Kernel bf16_avx512_bf16 =
    kernel_of<Bf16Kernel>("bf16_avx512_bf16", Isa::avx512_bf16, Type::bfloat16, Precision::highest);
extern const Kernel medium_avx512_bf16 =
    kernel_of<MediumKernel>("medium_avx512_bf16", Isa::avx512_bf16, Type::float32, Precision::medium);

}  // namespace sepwise
