// What may stand around or instead of the steps of a tile: pixels brought into it as they are, or gated, patches of a dense
// convolution, pixels expanded by a pointwise step of their own, rows of the tile normalized, rows that are y already.
//
// Expanded pixels go into a band, the rows of one picture that the next tile reads, which stays in this thread's cache.
// Tiles follow each other downwards, and rows that two of them share are moved to the top instead of computed again.
#pragma once

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

// `count` numbers that lie one after another, into the tile in their order. Whole vectors are written, up to 60 bytes too
// many, for which the tile has room: what follows is written later. `end`: that of x.
template <class C>
SEPWISE_INLINE void copy_numbers(const char* from, const char* end, int64_t count, char* to) {
  constexpr int64_t L = C::V::L;
  for (; count > 0; count -= L, from += L * C::Input::bytes, to += L * C::Mid::bytes) {
    const bool whole = end - from >= L * C::Input::bytes;
    C::Mid::store_in_order(to, whole ? C::Input::load_in_order(from) : C::Input::load_in_order_first(from, count));
  }
}

// The tile of a dense convolution: for each pixel its patch, with zeros outside of the picture and up to a whole word.
template <class C>
void gather_region(const Conv& conv, const char* x, const Region& region, Tile tile) {
  const int64_t pixel_bytes = conv.channels * C::Input::bytes, tap_bytes = conv.channels * C::Mid::bytes;
  const int64_t patch_bytes = conv.mid_channels() * C::Mid::bytes, rest = -patch_bytes & 3;
  const int64_t numbers = conv.kernel_w * conv.channels, step = conv.stride_w * pixel_bytes;
  const char* end = x + conv.batch * conv.height * conv.width * pixel_bytes;
  for (int64_t i = 0; i < region.count; i++) {
    const RowPiece& piece = region.pieces[i];
    const int64_t left = piece.first * conv.stride_w - conv.pad_left;
    // Patches of pixels `first` to `last` of the piece lie between the left and the right end of the picture.
    const int64_t first = left < 0 ? ceil_divide(-left, conv.stride_w) : 0, room = conv.width - conv.kernel_w - left;
    const int64_t last = conv.dilation_w > 1 || room < 0 ? -1 : room / conv.stride_w;
    for (int64_t u = 0; u < conv.kernel_h; u++) {
      const int64_t row = piece.row * conv.stride_h - conv.pad_top + u * conv.dilation_h;
      const bool inside = row >= 0 && row < conv.height;
      const char* line = x + (piece.image * conv.height + row) * conv.width * pixel_bytes;
      const char* from = line + left * pixel_bytes;
      char* to = tile.data + u * conv.kernel_w * tap_bytes;
      for (int64_t p = 0; p < piece.length; p++, from += step, to += tile.row_bytes) {
        if (inside && p >= first && p <= last) {
          copy_numbers<C>(from, end, numbers, to);
          continue;
        }
        for (int64_t v = 0; v < conv.kernel_w; v++) {
          const int64_t column = left + p * conv.stride_w + v * conv.dilation_w;
          if (inside && column >= 0 && column < conv.width)
            copy_numbers<C>(line + column * pixel_bytes, end, conv.channels, to + v * tap_bytes);
          else
            memset(to + v * tap_bytes, 0, tap_bytes);
        }
      }
    }
    for (int64_t p = 0; p < piece.length; p++, tile.data += tile.row_bytes)
      if (rest) memset(tile.data + patch_bytes, 0, rest);
  }
}

// A dense convolution of few channels reads lines of x: what kernel row `u` of a piece meets, zeros outside. The pixels'
// patches overlap in it, so that a number comes into the tile once for each line and not once for each patch.
template <class C>
struct Lines {
  int64_t bytes;  // of one, with room for what `copy_numbers` writes too much

  // No sum may be parted, and numbers must be words.
  static bool can(const Conv& conv) {
    return C::Mid::bytes == 4 && conv.gathered && conv.kernel_w > 1 && conv.stride_w <= conv.kernel_w &&
           conv.dilation_w == 1 && conv.mid_channels() <= 192;
  }
  // For pieces of at most so many pixels.
  Lines(const Conv& conv, int64_t pixels) : bytes((numbers(conv, pixels) * C::Mid::bytes + 63) / 64 * 64 + 64) {}
  static int64_t numbers(const Conv& conv, int64_t pixels) {
    return ((pixels - 1) * conv.stride_w + conv.kernel_w) * conv.channels;
  }

  void copy(const Conv& conv, const char* x, const RowPiece& piece, int64_t u, char* to) const {
    const int64_t pixel_bytes = conv.channels * C::Input::bytes, tap_bytes = conv.channels * C::Mid::bytes;
    const int64_t row = piece.row * conv.stride_h - conv.pad_top + u * conv.dilation_h;
    const int64_t left = piece.first * conv.stride_w - conv.pad_left;
    const int64_t columns = (piece.length - 1) * conv.stride_w + conv.kernel_w;
    const int64_t begin = left < 0 ? -left : 0, end = conv.width - left < columns ? conv.width - left : columns;
    if (row < 0 || row >= conv.height || begin >= end) {
      memset(to, 0, columns * tap_bytes);
      return;
    }
    const char* line = x + ((piece.image * conv.height + row) * conv.width + left) * pixel_bytes;
    memset(to, 0, begin * tap_bytes);
    copy_numbers<C>(line + begin * pixel_bytes, x + conv.batch * conv.height * conv.width * pixel_bytes,
                    (end - begin) * conv.channels, to + begin * tap_bytes);
    memset(to + end * tap_bytes, 0, (columns - end) * tap_bytes);
  }
};

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

// (number - mean) / sqrt(variance + epsilon) over each row of the tile. A row ends with places that hold zeros; they
// stay within it and are left out of its statistics.
template <class C>
void normalize_rows(const Conv& conv, int64_t places, int64_t rows, Tile tile) {
  using V = typename C::V;
  using F = typename V::F;
  constexpr int n = C::Mid::words, step = V::L * 4;
  const int64_t bytes = places * C::Mid::bytes;
  const float count = (float)conv.mid_channels(), zeros = (float)(places - conv.mid_channels());
  for (int64_t r = 0; r < rows; r++) {
    char* row = tile.data + r * tile.row_bytes;
    F sum[2] = {}, x[2];
    for (int64_t b = 0; b < bytes; b += step) {
      C::Mid::load_word(row + b, x);
      for (int i = 0; i < n; i++) sum[i] += x[i];
    }
    const float mean = V::total(n == 2 ? sum[0] + sum[1] : sum[0]) / count;
    F squares[2] = {};
    for (int64_t b = 0; b < bytes; b += step) {
      C::Mid::load_word(row + b, x);
      for (int i = 0; i < n; i++) {
        const F off = x[i] - V::fill(mean);
        squares[i] = V::add_product(squares[i], off, off);
      }
    }
    const float all = V::total(n == 2 ? squares[0] + squares[1] : squares[0]) - zeros * mean * mean;
    const float variance = (all > 0 ? all : all != all ? all : 0) / count;
    const F scale = V::fill(1 / __builtin_sqrtf(variance + conv.epsilon)), middle = V::fill(mean);
    for (int64_t b = 0; b < bytes; b += step) {
      C::Mid::load_word(row + b, x);
      for (int i = 0; i < n; i++) x[i] = (x[i] - middle) * scale;
      C::Mid::store_word(row + b, x);
    }
  }
}

// The pointwise step that expands x, and where its results go.
template <class C>
struct Expansion {
  Conv conv;  // of this step alone: its channels, the size of its picture
  MatmulCall matmul;
  const MatmulBlock (*table)[3];
  const float* panels;
  int64_t pixel_bytes, line_bytes;  // of the band
  int64_t pixels;                   // at a time

  static Conv step_of(const Conv& whole) {
    Conv step = whole;
    step.channels = whole.expanded, step.out_channels = whole.channels, step.multiplier = 1;
    step.kernel_h = step.kernel_w = 0, step.bare = false;
    return step;
  }

  // Rows `first` to `end` of a picture into memory. `tile` holds `pixels` rows.
  void rows(const char* x, int64_t image, int64_t first, int64_t end, char* memory, Tile tile) const {
    char* out[Region::most_pixels];
    Ahead nothing;
    nothing.clear();
    const int64_t begin = (image * conv.height + first) * conv.width, all = (end - first) * conv.width;
    for (int64_t done = 0; done < all; done += pixels) {
      const int64_t some = all - done < pixels ? all - done : pixels;
      copy_pixels<C>(x + (begin + done) * conv.channels * C::Input::bytes, nullptr, conv.channels, some, tile);
      for (int64_t p = 0; p < some; p++) {
        const int64_t pixel = done + p;
        out[p] = memory + pixel / conv.width * line_bytes + pixel % conv.width * pixel_bytes;
      }
      matmul_range<C>(matmul, table, tile.data, some, panels, out, conv.out_channels, nothing);
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
    return memory_ - (image * expansion_.conv.height + first_) * line;
  }

 private:
  const Expansion<C>& expansion_;
  char* memory_;
  int64_t image_ = -1, first_ = 0, end_ = 0;
};

}  // namespace
}  // namespace sepwise
