// AVX-512 with bfloat16 dot products: a word is a pair of bfloat16 numbers, so the matrix step does twice the work of
// float32. Sums stay float32. Every size and activation; owns all tails.
#include "engine.h"
#include "sixteen.h"

namespace sepwise {
namespace {

struct SixteenPairs : Sixteen {
  SEPWISE_INLINE void store_bf16(void* p, F low, F high) {
    _mm512_storeu_si512(p, (__m512i)_mm512_cvtne2ps_pbh(high, low));
  }
  SEPWISE_INLINE void store_bf16_first(void* p, F low, F high, int64_t count) {
    _mm512_mask_storeu_epi16(p, halves_below(count), (__m512i)_mm512_cvtne2ps_pbh(high, low));
  }
};

// The tile in bfloat16: neighbouring places form the words that the dot product takes.
struct PairTile {
  static constexpr int bytes = 2;
  template <int VECTORS>
  SEPWISE_INLINE void store(char* p, const Sixteen::F* x) {
    static_assert(VECTORS == 2);
    SixteenPairs::store_bf16(p, x[0], x[1]);
  }
};

struct PairProducts {
  SEPWISE_INLINE Sixteen::F add_product(Sixteen::F sum, Sixteen::F word, Sixteen::F weight) {
    return _mm512_dpbf16_ps(sum, (__m512bh)word, (__m512bh)weight);
  }
  static void pack_number(float* panel, int64_t lanes, int64_t lane, int64_t place, float number) {
    uint32_t bits;
    memcpy(&bits, &number, 4);
    const bool is_nan = number != number;
    bits = is_nan ? bits | 0x00400000u : bits + 0x7fffu + (bits >> 16 & 1u);
    const uint16_t half = (uint16_t)(bits >> 16);
    memcpy((char*)panel + ((place / 2 * lanes + lane) * 2 + place % 2) * 2, &half, 2);
  }
};

struct Bf16Kernel : PairProducts {
  using V = SixteenPairs;
  using Input = Bf16Input<V>;
  using Mid = PairTile;
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
