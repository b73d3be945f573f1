// What may stand around or instead of the steps of a tile: pixels brought into it as they are, or gated, pixels expanded by
// a pointwise step or a dense convolution of their own, rows of the tile normalized, rows that are y already.
//
// Expanded pixels go into a band, the rows of one picture that the next tile reads, which stays in this thread's cache.
// Tiles follow each other downwards, and rows that two of them share are moved to the top instead of computed again.
#pragma once

#include "dense.h"
#include "depthwise.h"
#include "matmul.h"

namespace sepwise {
namespace {

// One block of a pixel into the tile, times that of the gate where there is one.
template <class C, int VECTORS, bool PARTIAL>
SEPWISE_INLINE void copy_block(const char* from, const char* gate, int64_t count, char* to) {
  typename C::V::F numbers[2], factors[2];
  C::Input::template load<VECTORS, PARTIAL>(from, count, numbers);
  if (gate) {
    C::Input::template load<VECTORS, PARTIAL>(gate, count, factors);
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; v++) numbers[v] *= factors[v];
  }
  C::Mid::template store<VECTORS>(to, numbers);
}

// Pixels that lie one after another, all their channels, into rows 0, 1, ... of the tile. `gate`: null where there is none.
template <class C>
void copy_pixels(const char* x, const char* gate, int64_t channels, int64_t pixels, Tile tile) {
  constexpr int width = 2 * C::V::L;
  using Order = ChannelOrder<C>;
  const int64_t full = channels / width * width, rest = channels - full, pixel_bytes = channels * C::Input::bytes;
  for (int64_t p = 0; p < pixels; p++) {
    const char* from = x + p * pixel_bytes;
    const char* factors = gate;
    char* to = tile.data + p * tile.row_bytes;
    for (int64_t c = 0; c < full; c += width, from += width * C::Input::bytes, to += width * C::Mid::bytes) {
      copy_block<C, 2, false>(from, factors, width, to);
      if (factors) factors += width * C::Input::bytes;
    }
    if (rest == 0) continue;
    if constexpr (Order::may_be_narrow) {
      if (Order::is_narrow(rest)) {
        copy_block<C, 1, true>(from, factors, rest, to);
        continue;
      }
    }
    copy_block<C, 2, true>(from, factors, rest, to);
  }
}

// The tile of a call without a depthwise step.
template <class C>
void copy_region(const Conv& conv, const char* x, const char* gate, const Region& region, Tile tile) {
  const int64_t pixel_bytes = conv.channels * C::Input::bytes;
  for (int64_t i = 0; i < region.count; i++) {
    const RowPiece& piece = region.pieces[i];
    const int64_t pixel = (piece.image * conv.height + piece.row) * conv.width + piece.first;
    copy_pixels<C>(x + pixel * pixel_bytes, gate ? gate + piece.image * pixel_bytes : nullptr, conv.channels,
                   piece.length, tile);
    tile.data += piece.length * tile.row_bytes;
  }
}

// Rows of the tile -> y, one pointer a row, where there is no pointwise step. Numbers of bfloat16 are the upper halves of
// what holds them.
template <class C>
void give_rows(const Conv& conv, int64_t rows, Tile tile, char* const* out) {
  constexpr int64_t width = 2 * C::V::L;
  constexpr int tall = C::Mid::bytes / 2, wide = C::Output::bytes / 2;
  for (int64_t r = 0; r < rows; r++) {
    const char* row = tile.data + r * tile.row_bytes;
    if constexpr (C::Input::keeps_order && C::Mid::bytes == C::Output::bytes) {
      memcpy(out[r], row, conv.channels * C::Output::bytes);
      continue;
    }
    for (int64_t first = 0; first < conv.channels; first += width) {
      const int64_t left = conv.channels - first;
      uint16_t from[width * tall], to[width * wide] = {};
      memcpy(from, row + first * C::Mid::bytes, sizeof from);
#pragma GCC unroll 64
      for (int64_t c = 0; c < width; c++) to[(c + 1) * wide - 1] = from[(C::Input::position(c) + 1) * tall - 1];
      memcpy(out[r] + first * C::Output::bytes, to, (left < width ? left : width) * C::Output::bytes);
    }
  }
}

// (number - mean) / sqrt(variance + epsilon) over each row of the tile. Its places that are no channels hold what the
// activation before makes of zero; they stay in the row and are left out of its statistics.
template <class C>
void normalize_rows(const Conv& conv, int64_t places, int64_t rows, Tile tile) {
  using V = typename C::V;
  using F = typename V::F;
  constexpr int n = C::Mid::words, step = V::L * 4;
  const int64_t bytes = places * C::Mid::bytes;
  const float count = (float)conv.mid_channels(), empty = (float)(places - conv.mid_channels());
  float zeros[V::L] __attribute__((aligned(64))) = {};
  activate<V::L, C::Mid::is_bf16>(conv.between, zeros, V::L);
  const float held = zeros[0];
  for (int64_t r = 0; r < rows; r++) {
    char* row = tile.data + r * tile.row_bytes;
    F sum[2] = {}, x[2];
    for (int64_t b = 0; b < bytes; b += step) {
      C::Mid::load_word(row + b, x);
      for (int i = 0; i < n; i++) sum[i] += x[i];
    }
    const float mean = (V::total(n == 2 ? sum[0] + sum[1] : sum[0]) - empty * held) / count;
    F squares[2] = {};
    for (int64_t b = 0; b < bytes; b += step) {
      C::Mid::load_word(row + b, x);
      for (int i = 0; i < n; i++) {
        const F off = x[i] - V::fill(mean);
        squares[i] = V::add_product(squares[i], off, off);
      }
    }
    const float all = V::total(n == 2 ? squares[0] + squares[1] : squares[0]) - empty * (held - mean) * (held - mean);
    const float variance = (all > 0 ? all : all != all ? all : 0) / count;
    const F scale = V::fill(1 / __builtin_sqrtf(variance + conv.epsilon)), middle = V::fill(mean);
    for (int64_t b = 0; b < bytes; b += step) {
      C::Mid::load_word(row + b, x);
      for (int i = 0; i < n; i++) x[i] = (x[i] - middle) * scale;
      C::Mid::store_word(row + b, x);
    }
  }
}

// The step that expands x, and where its results go.
template <class C>
struct Expansion {
  Conv conv;  // of this step alone: its channels, its kernel, the size of its picture
  MatmulCall matmul;
  const float* panels;
  int64_t pixel_bytes, line_bytes;  // of the band
  int64_t pixels;                   // at a time
  Dense<C> dense;

  static Conv step_of(const Conv& whole) {
    Conv step = whole;
    step.channels = whole.expanded, step.out_channels = whole.channels, step.multiplier = 1, step.expanded = 0;
    step.kernel_h = whole.expand_h ? whole.expand_h : 1, step.kernel_w = whole.expand_w ? whole.expand_w : 1;
    step.gathered = whole.expanded > 0;
    step.stride_h = whole.expand_stride_h, step.stride_w = whole.expand_stride_w;
    step.dilation_h = step.dilation_w = 1;
    step.pad_top = whole.expand_top, step.pad_left = whole.expand_left;
    step.out_height = whole.height, step.out_width = whole.width;
    if (whole.expand_h) step.height = whole.x_height, step.width = whole.x_width;
    step.bare = step.normalized = false;
    return step;
  }
  int64_t tile_bytes() const { return dense.bytes(pixels, matmul.row_bytes); }

  // Rows `first` to `end` of a picture into memory. `tile` has `tile_bytes`.
  void rows(const char* x, int64_t image, int64_t first, int64_t end, char* memory, Tile tile) const {
    const Picture<C> picture(conv, x);
    char* out[Region::most_pixels];
    Ahead nothing;
    nothing.clear();
    Region region;
    const int64_t unit = Dense<C>::pairs_rows(conv) ? 2 : 1, most = pixels / unit;
    const int64_t columns = conv.out_width < most ? conv.out_width : most, together = most / columns * unit;
    for (int64_t row = first; row < end; row += together)
      for (int64_t column = 0; column < conv.out_width; column += columns) {
        const int64_t some = conv.out_width - column < columns ? conv.out_width - column : columns;
        const int64_t rows = end - row < together ? end - row : together;
        region.count = 0;
        for (int64_t r = 0; r < rows; r++) {
          region.add(image, row + r, column, some);
          for (int64_t p = 0; p < some; p++)
            out[r * some + p] = memory + (row + r - first) * line_bytes + (column + p) * pixel_bytes;
        }
        dense.multiply(picture, region, tile, matmul, panels, out, conv.out_channels, nothing, {});
      }
  }
};

template <class C>
class Band {
 public:
  Band(const Expansion<C>& expansion, char* memory) : expansion_(expansion), memory_(memory) {}

  // Makes rows `first` to `end` of a picture be there; returns where row 0 of picture 0 would lie.
  const char* cover(const char* x, int64_t image, int64_t first, int64_t end, Tile tile) {
    const int64_t line = expansion_.line_bytes;
    if (image != image_ || first < first_ || first > end_) {
      first_ = end_ = first;
    } else if (first > first_) {
      memmove(memory_, memory_ + (first - first_) * line, (end_ - first) * line);
      first_ = first;
    }
    image_ = image;
    if (end > end_) {
      expansion_.rows(x, image, end_, end, memory_ + (end_ - first_) * line, tile);
      end_ = end;
    }
    return memory_ - (image * expansion_.conv.out_height + first_) * line;
  }

 private:
  const Expansion<C>& expansion_;
  char* memory_;
  int64_t image_ = -1, first_ = 0, end_ = 0;
};

}  // namespace
}  // namespace sepwise
