// A dense convolution with three taps along a row or a column, at stride 1: two neighbouring pixels of y by four products
// where there are six. F(2, 3) of Winograd; Lavin and Gray, "Fast algorithms for convolutional neural networks" (2016,
// section 4.1). Only in float32: sums and differences of bfloat16 numbers would be rounded.
//
//     y0 = (x0 - x2) g0 + (x1 + x2) (g0 + g1 + g2) / 2 + (x2 - x1) (g0 - g1 + g2) / 2
//     y1 =                (x1 + x2) (g0 + g1 + g2) / 2 - (x2 - x1) (g0 - g1 + g2) / 2 - (x1 - x3) g2
//
// x0 to x3: neighbours along the taps, each all channels of a pixel, and of all kernel rows where the taps lie in a row.
// Products of the middle two serve both pixels: an even one and the next, so that results do not depend on how y is cut
// into tiles. What that does to errors, and to infinities: docs/numerics.md.
// Packed weights of a panel: the bias, then those of each of the four products, in the order of the parts of a tile.
#pragma once

#include "matmul.h"
#include "patches.h"

namespace sepwise {
namespace {

// As matmul_block, with two pixels of y for each row of four parts of the tile.
template <class C, int ROWS, int VECTORS>
static __attribute__((noinline)) void winograd_block(const MatmulCall& call, const char* tile, const float* panel,
                                                     char* const* out, int64_t offset, int64_t channels, Soon soon) {
  using V = typename C::V;
  using F = typename V::F;
  constexpr int L = V::L, numbers = ROWS * VECTORS * L;
  Sums<C, ROWS, VECTORS> sums(tile, call.row_bytes, panel);
  sums.template claim<true>(call, out, offset);
  float memory[3 * numbers] __attribute__((aligned(64)));
  float* kept = memory;
  asm("" : "+r"(kept));  // the registers are for the sums
  float* const first = kept;
  float* const second = kept + numbers;
  float* const parts = kept + 2 * numbers;
  const int64_t pieces = (call.words + 127) / 128, piece = ((call.words + pieces - 1) / pieces + 3) / 4 * 4;
  for (int product = 0;; product++) {
    int64_t left = call.words;
    for (; left > piece; left -= piece) {
      sums.add(piece, soon);
      const bool goes_on = left < call.words;
      sums.each([&](int r, int v) __attribute__((always_inline)) {
        float* place = parts + (r * VECTORS + v) * L;
        V::store(place, goes_on ? sums.sum[r][v] + V::load(place) : sums.sum[r][v]);
        sums.sum[r][v] = F{};
      });
    }
    sums.add(left, soon);
    if (call.words > piece)
      sums.each([&](int r, int v) __attribute__((always_inline)) {
        sums.sum[r][v] += V::load(parts + (r * VECTORS + v) * L);
      });
    if (product == 0) {
      sums.each([&](int r, int v) __attribute__((always_inline)) {
        V::store(second + (r * VECTORS + v) * L, sums.sum[r][v]);
        sums.sum[r][v] = F{};
      });
    } else if (product == 1) {
      sums.each([&](int r, int v) __attribute__((always_inline)) {
        const int64_t i = (r * VECTORS + v) * L;
        const F both = V::load(second + i);
        V::store(first + i, both + sums.sum[r][v]);
        V::store(second + i, both - sums.sum[r][v]);
        sums.sum[r][v] = F{};
      });
    } else {
      const float* rest = product == 2 ? first : second;
      sums.each([&](int r, int v) __attribute__((always_inline)) {
        sums.sum[r][v] += V::load(rest + (r * VECTORS + v) * L);
      });
      sums.template finish<true>(call, out + (product - 2), 2, offset, channels);
      if (product == 3) return;
      sums.each([&](int r, int v) __attribute__((always_inline)) { sums.sum[r][v] = F{}; });
    }
    sums.skip(call.gaps[product]);
  }
}

struct TwoPixels {
  template <class C, int ROWS, int VECTORS>
  static constexpr MatmulBlock block = winograd_block<C, ROWS, VECTORS>;
};

template <class C>
struct Winograd {
  static constexpr bool exists = C::Input::bytes == 4 && C::Mid::bytes == 4 && C::Input::keeps_order;
  static constexpr int products = 4;
  const Conv* conv;
  bool serves;

  explicit Winograd(const Conv& conv) : conv(&conv), serves(can(conv)) {}

  // Products of few words, or for few channels of y, are not worth what stands around them.
  static bool can(const Conv& conv) {
    if (!exists || !conv.gathered) return false;
    const bool row = conv.kernel_w == 3 && conv.stride_w == 1 && conv.dilation_w == 1;
    const bool column = conv.kernel_w == 1 && conv.stride_w == 1 && conv.kernel_h == 3 && conv.stride_h == 1 &&
                        conv.dilation_h == 1;
    return (row || column) && words(conv) >= 16 && conv.out_channels >= 8;
  }
  // Whether the two pixels lie in one column.
  static bool pairs_rows(const Conv& conv) { return conv.kernel_w == 1; }
  // Of one product.
  static int64_t words(const Conv& conv) {
    return pairs_rows(conv) ? conv.channels : conv.kernel_h * conv.channels;
  }
  static int64_t row_bytes(const Conv& conv) { return (words(conv) * 4 + 63) / 64 * 64 + 64; }
  // For each pixel of y.
  static int64_t pixel_bytes(const Conv& conv) { return products / 2 * row_bytes(conv); }
  // For regions of so many pixels, of which every piece may end in the middle of a pair.
  int64_t bytes(int64_t pixels) const { return products * pixels * row_bytes(*conv) + zero_bytes(); }

  static void pack(const Conv& conv, const Weights& weights, float* out) {
    constexpr int64_t width = 2 * C::V::L;
    const int64_t taps = conv.kernel_h * conv.kernel_w, rows = pairs_rows(conv) ? 1 : conv.kernel_h, all = words(conv);
    for (int64_t first = 0; first < conv.out_channels; first += width) {
      const int64_t channels = conv.out_channels - first < width ? conv.out_channels - first : width;
      const int64_t lanes = channels <= C::V::L ? C::V::L : width;
      for (int64_t o = 0; weights.bias && o < channels; o++) out[o] = C::Input::number(weights.bias, first + o);
      for (int64_t u = 0; u < rows; u++)
        for (int64_t c = 0; c < conv.channels; c++)
          for (int64_t o = 0; o < channels; o++) {
            double g[3];
            for (int64_t t = 0; t < 3; t++)
              g[t] = C::Input::number(weights.pointwise, ((first + o) * conv.channels + c) * taps + u * 3 + t);
            const double packed[products] = {(g[0] + g[1] + g[2]) / 2, (g[0] - g[1] + g[2]) / 2, g[0], -g[2]};
            for (int i = 0; i < products; i++)
              C::pack_number(out + lanes, lanes, o, i * all + u * conv.channels + c, (float)packed[i]);
          }
      out += (products * all + 1) * lanes;
    }
  }

  // As Patches::multiply; `memory` has `bytes`.
  void multiply(const Picture<C>& x, const Region& region, char* memory, const MatmulCall& whole,
                const float* panels, char* const* out, int64_t out_channels, Ahead& ahead, Coming after) const {
    char* pixels[2 * Region::most_pixels];
    const Tile tile{memory + zero_bytes(), row_bytes(*conv)};
    memset(memory, 0, zero_bytes());
    const int64_t rows = count(region, out, pixels), part = rows * tile.row_bytes;
    if (pairs_rows(*conv))
      by_columns(x, region, memory, tile, part);
    else
      by_rows(x, region, memory, tile, part);
    const int64_t gap = part - words(*conv) * 4, gaps[products - 1] = {gap, gap, gap};
    MatmulCall call = whole;
    call.words = words(*conv), call.segments = products, call.gaps = gaps;
    call.row_bytes = tile.row_bytes, call.outputs = 2;
    matmul_range<C>(call, blocks_of<C, TwoPixels>.at, tile.data, rows, panels, pixels, out_channels, ahead, after);
  }

 private:
  int64_t zero_bytes() const { return (conv->channels * 4 + 63) / 64 * 64 + 64; }

  // Whether piece i makes pairs with the one after it.
  static bool has_below(const Region& region, int64_t i) {
    if (i + 1 == region.count) return false;
    const RowPiece &here = region.pieces[i], &below = region.pieces[i + 1];
    return here.row % 2 == 0 && below.image == here.image && below.row == here.row + 1 && below.first == here.first &&
           below.length == here.length;
  }

  // Pairs of pixels of y, null for one that the region does not have; returns how many pairs there are.
  int64_t count(const Region& region, char* const* out, char** pixels) const {
    char** pair = pixels;
    for (int64_t i = 0; i < region.count; i++) {
      const RowPiece& piece = region.pieces[i];
      if (pairs_rows(*conv)) {
        const bool below = has_below(region, i), is_second = piece.row % 2;
        for (int64_t p = 0; p < piece.length; p++, pair += 2) {
          pair[is_second] = out[p];
          pair[!is_second] = below ? out[piece.length + p] : nullptr;
        }
        out += below ? 2 * piece.length : piece.length;
        i += below;
      } else {
        for (int64_t c = piece.first / 2 * 2; c < piece.first + piece.length; c += 2, pair += 2) {
          pair[0] = c >= piece.first ? out[c - piece.first] : nullptr;
          pair[1] = c + 1 < piece.first + piece.length ? out[c + 1 - piece.first] : nullptr;
        }
        out += piece.length;
      }
    }
    return (pair - pixels) / 2;
  }

  // One row of the four parts of the tile, of all channels of four pixels.
  SEPWISE_INLINE void transform(const char* const* pixel, int64_t channels, char* to, int64_t part) {
    using V = typename C::V;
    using F = typename V::F;
    for (int64_t c = 0; c < channels; c += V::L, to += V::L * 4) {
      F x[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; i++) {
        const char* from = pixel[i] + c * 4;
        x[i] = channels - c >= V::L ? V::load(from) : V::load_first(from, channels - c);
      }
      V::store(to, x[1] + x[2]);
      V::store(to + part, x[2] - x[1]);
      V::store(to + 2 * part, x[0] - x[2]);
      V::store(to + 3 * part, x[1] - x[3]);
    }
  }

  void by_rows(const Picture<C>& x, const Region& region, const char* zeros, Tile tile, int64_t part) const {
    for (int64_t i = 0; i < region.count; i++) {
      const RowPiece& piece = region.pieces[i];
      const int64_t first = piece.first / 2 * 2, left = first - conv->pad_left;
      const int64_t pairs = ceil_divide(piece.first + piece.length - first, 2);
      for (int64_t u = 0; u < conv->kernel_h; u++) {
        const int64_t row = piece.row * conv->stride_h - conv->pad_top + u * conv->dilation_h;
        const bool inside = row >= 0 && row < conv->height;
        const char* line = x.line(*conv, piece.image, row);
        for (int64_t p = 0; p < pairs; p++) {
          const char* pixel[4];
#pragma GCC unroll 4
          for (int t = 0; t < 4; t++) {
            const int64_t column = left + 2 * p + t;
            pixel[t] = inside && column >= 0 && column < conv->width ? line + column * x.pixel_bytes : zeros;
          }
          transform(pixel, conv->channels, tile.data + p * tile.row_bytes + u * conv->channels * 4, part);
        }
      }
      tile.data += pairs * tile.row_bytes;
    }
  }

  void by_columns(const Picture<C>& x, const Region& region, const char* zeros, Tile tile, int64_t part) const {
    for (int64_t i = 0; i < region.count; i++) {
      const RowPiece& piece = region.pieces[i];
      const char* pixel[4];
      int64_t step[4];
      for (int t = 0; t < 4; t++) {
        const int64_t row = piece.row / 2 * 2 - conv->pad_top + t;
        const bool inside = row >= 0 && row < conv->height;
        pixel[t] = inside ? x.line(*conv, piece.image, row) + (piece.first - conv->pad_left) * x.pixel_bytes : zeros;
        step[t] = inside ? x.pixel_bytes : 0;
      }
      for (int64_t p = 0; p < piece.length; p++, tile.data += tile.row_bytes) {
        const int64_t column = piece.first - conv->pad_left + p;
        const char* none[4] = {zeros, zeros, zeros, zeros};
        transform(column >= 0 && column < conv->width ? pixel : none, conv->channels, tile.data, part);
#pragma GCC unroll 4
        for (int t = 0; t < 4; t++) pixel[t] += step[t];
      }
      i += has_below(region, i);
    }
  }
};

}  // namespace
}  // namespace sepwise
