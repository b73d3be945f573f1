// The depthwise step with bfloat16 dot products: two rows of y at a time, stride 1, kernels of 5 and 7.
// (For kernels of 3 it was no faster than float32 products on Zen 5: the matrix step dominates.)
//
// Two rows of x below each other, interleaved, are words that one dot product multiplies with two taps of a column: for
// a kernel of 3, the rows a b c d give y = (a b)(w0 w1) + (c 0)(w2 0) above and (0 b)(0 w0) + (c d)(w1 w2) below, so
// that (K + 1) / 2 products do the work of K. The zeros stand in the words, not only in the weights: an infinity or NaN
// in a row that does not belong to an output must not reach it. Interleaving takes one instruction for sixteen channels
// and sets their order: channels 0-3, 8-11, 16-19, 24-27 of a block, then the others.
// Packed weights: one word that says whether all taps are finite (rows outside the picture are multiplied as zeros),
// then for each block of channels [half][pair of rows][row of y][column][16 words].
#pragma once

#include "depthwise.h"
#include "pairs.h"

namespace sepwise {
namespace {

// bfloat16 in the order of channels that interleaving gives.
struct InterleavedInput : Bf16Input<SixteenPairs> {
  static constexpr int64_t position(int64_t c) { return c % 8 / 4 * 16 + c / 8 * 4 + c % 4; }
  template <int VECTORS, bool PARTIAL>
  SEPWISE_INLINE void load(const char* p, int64_t count, Sixteen::F* x) {
    static_assert(VECTORS == 2);
    const __m512i v = PARTIAL ? _mm512_maskz_loadu_epi16(Sixteen::halves_below(count), p) : _mm512_loadu_si512(p);
    x[0] = (Sixteen::F)_mm512_unpacklo_epi16(_mm512_setzero_si512(), v);
    x[1] = (Sixteen::F)_mm512_unpackhi_epi16(_mm512_setzero_si512(), v);
  }
};

struct RowPairBlock {
  const char* corner;  // pixel of x under the first tap of the upper row's first output; may lie outside the picture
  uint32_t rows;       // bit i: row i of the K + 1 rows lies inside the picture
  uint32_t columns;    // bit i: column i does
  char* upper;         // rows of the tile
  char* lower;
};

template <int K, int COLUMNS, bool EDGE>
SEPWISE_INLINE void row_pair_half(const DepthwiseCall& call, const RowPairBlock& block, const char* bias,
                                  const char* taps, int64_t channel_bytes, __mmask32 channels, const int half,
                                  int64_t row_bytes, int64_t out_bytes) {
  using V = SixteenPairs;
  using F = V::F;
  constexpr int pairs = (K + 1) / 2, reach = COLUMNS + K - 1;
  const __m512i zero = _mm512_setzero_si512();
  F sum[2][COLUMNS];
#pragma GCC unroll 2
  for (int r = 0; r < 2; r++)
#pragma GCC unroll 8
    for (int o = 0; o < COLUMNS; o++) sum[r][o] = V::load(bias);
#pragma GCC unroll 4
  for (int p = 0; p < pairs; p++, taps += 2 * K * 64) {
    const __mmask32 first = block.rows >> (2 * p) & 1 ? channels : 0, second = block.rows >> (2 * p + 1) & 1 ? channels : 0;
    if (!(first | second)) continue;
    F tap[2][K];
#pragma GCC unroll 2
    for (int r = 0; r < 2; r++)
#pragma GCC unroll 8
      for (int kx = 0; kx < K; kx++) {
        tap[r][kx] = V::load(taps + (r * K + kx) * 64);
        V::keep(tap[r][kx]);
      }
    const char* pixel = block.corner + 2 * p * call.line_bytes + channel_bytes;
#pragma GCC unroll 16
    for (int i = 0; i < reach; i++, pixel += call.pixel_bytes) {
      if (EDGE && !(block.columns >> i & 1)) continue;
      const __m512i a = _mm512_maskz_loadu_epi16(first, pixel);
      const __m512i b = _mm512_maskz_loadu_epi16(second, pixel + call.line_bytes);
      const __m512i above = p == pairs - 1 ? zero : b, below = p == 0 ? zero : a;
      F word[2];
      word[0] = (F)(half ? _mm512_unpackhi_epi16(a, above) : _mm512_unpacklo_epi16(a, above));
      word[1] = (F)(half ? _mm512_unpackhi_epi16(below, b) : _mm512_unpacklo_epi16(below, b));
#pragma GCC unroll 8
      for (int o = 0; o < COLUMNS; o++) {
        const int kx = i - o;
        if (kx >= 0 && kx < K)
#pragma GCC unroll 2
          for (int r = 0; r < 2; r++)
            sum[r][o] = (F)_mm512_dpbf16_ps((__m512)sum[r][o], (__m512bh)word[r], (__m512bh)tap[r][kx]);
      }
    }
  }
  activate_sums<V, PairTile>(call.ending, sum);
  const Bounds<V> bounds(call.ending);
#pragma GCC unroll 16
  for (int i = 0; i < 2 * COLUMNS; i++) {
    const F mid = bounds.clamp(sum[i / COLUMNS][i % COLUMNS]);
    char* out = (i < COLUMNS ? block.upper : block.lower) + i % COLUMNS * row_bytes + out_bytes + half * 32;
    _mm256_storeu_si256((__m256i*)out, (__m256i)_mm512_cvtneps_pbh((__m512)mid));
  }
}

template <int K, int COLUMNS, bool EDGE>
static __attribute__((noinline)) void row_pair_pixels(const DepthwiseCall& call, const RowPairBlock& block,
                                                      int64_t row_bytes) {
  const Conv& conv = *call.conv;
  const char* weights = (const char*)call.weights;
  const char* taps = (const char*)call.more_weights + 64;
  int64_t out_bytes = 0;
  for (int64_t c = 0; c < conv.channels; c += 32) {
    const __mmask32 channels = Sixteen::halves_below(conv.channels - c < 32 ? conv.channels - c : 32);
    for (int64_t j = 0; j < conv.multiplier; j++, out_bytes += 64) {
      row_pair_half<K, COLUMNS, EDGE>(call, block, weights, taps, c * 2, channels, 0, row_bytes, out_bytes);
      taps += (K + 1) * K * 64;
      row_pair_half<K, COLUMNS, EDGE>(call, block, weights + 64, taps, c * 2, channels, 1, row_bytes, out_bytes);
      taps += (K + 1) * K * 64;
      weights += (K * K + 1) * 32 * sizeof(float);
    }
  }
}

// The way of a kernel configuration with `Rows = RowPairs` (see depthwise_region).
struct RowPairs {
  using Pixels = void (*)(const DepthwiseCall&, const RowPairBlock&, int64_t row_bytes);

  static bool serves(const Conv& conv) {
    return conv.has_depthwise() && conv.kernel_h == conv.kernel_w && (conv.kernel_h == 5 || conv.kernel_h == 7);
  }
  static int64_t blocks(const Conv& conv) { return (conv.channels + 31) / 32 * conv.multiplier; }
  static int64_t floats(const Conv& conv) {
    return serves(conv) ? 16 + blocks(conv) * 2 * (conv.kernel_h + 1) * conv.kernel_w * 16 : 0;
  }

  static void pack(const Conv& conv, const Weights& weights, float* out) {
    if (!serves(conv)) return;
    const int64_t K = conv.kernel_h;
    char* words = (char*)(out + 16);
    float finite = 1;
    for (int64_t c = 0; c < conv.channels; c++)
      for (int64_t j = 0; j < conv.multiplier; j++) {
        const int64_t place = InterleavedInput::position(c % 32);
        char* filter = words + ((c / 32 * conv.multiplier + j) * 2 + place / 16) * (K + 1) * K * 64;
        for (int64_t ky = 0; ky < K; ky++)
          for (int64_t kx = 0; kx < K; kx++) {
            const int64_t q = c * conv.multiplier + j;
            const float tap = InterleavedInput::number(weights.depthwise, (q * K + ky) * K + kx);
            if (!(tap - tap == 0)) finite = 0;
            for (int64_t r = 0; r < 2; r++) {
              const int64_t row = ky + r;  // of the K + 1 rows of x
              char* word = filter + ((row / 2 * 2 + r) * K + kx) * 64 + place % 16 * 4;
              const uint16_t half = bf16_of(tap);
              memcpy(word + row % 2 * 2, &half, 2);
            }
          }
      }
    out[0] = finite;
  }

  template <int K, int COLUMNS>
  static Pixels pixels_of(int64_t columns, bool edge) {
    if constexpr (COLUMNS == 0) {
      return nullptr;
    } else {
      if (columns == COLUMNS) return edge ? row_pair_pixels<K, COLUMNS, true> : row_pair_pixels<K, COLUMNS, false>;
      return pixels_of<K, COLUMNS - 1>(columns, edge);
    }
  }

  static bool can(const DepthwiseCall& call) {
    const Conv& conv = *call.conv;
    return serves(conv) && conv.stride_h == 1 && conv.stride_w == 1 && conv.dilation_h == 1 && conv.dilation_w == 1 &&
           call.more_weights[0] == 1;
  }

  // `columns` pixels from column `first` of y in the rows `piece.row` and the next.
  static void columns(const DepthwiseCall& call, const char* x, const RowPiece& piece, int64_t first, int64_t columns,
                      char* upper, char* lower, int64_t row_bytes) {
    const Conv& conv = *call.conv;
    const int64_t K = conv.kernel_h, top = piece.row - conv.pad_top, left = first - conv.pad_left;
    const int64_t reach = columns + K - 1;
    const bool edge = left < 0 || left + reach > conv.width;
    RowPairBlock block;
    block.corner = x + (piece.image * conv.height + top) * call.line_bytes + left * call.pixel_bytes;
    block.rows = inside(top, K + 1, conv.height);
    block.columns = inside(left, reach, conv.width);
    block.upper = upper;
    block.lower = lower;
    Pixels pixels = K == 5 ? pixels_of<5, 8>(columns, edge) : pixels_of<7, 7>(columns, edge);
    pixels(call, block, row_bytes);
  }
};

}  // namespace
}  // namespace sepwise
