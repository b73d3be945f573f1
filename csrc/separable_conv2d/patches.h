// What a dense convolution multiplies: patches of a picture, brought into a tile, or read where they lie.
#pragma once

#include "depthwise.h"
#include "matmul.h"

namespace sepwise {
namespace {

// A picture, or a band that stands for one.
template <class C>
struct Picture {
  const char* data;
  int64_t pixel_bytes, line_bytes;
  const char* end;  // nothing behind it may be read

  Picture(const Conv& conv, const char* x)
      : Picture(conv, x, conv.channels * C::Input::bytes, conv.width * conv.channels * C::Input::bytes) {}
  Picture(const Conv& conv, const char* x, int64_t pixel_bytes, int64_t line_bytes)
      : data(x), pixel_bytes(pixel_bytes), line_bytes(line_bytes), end(x + conv.batch * conv.height * line_bytes) {}
  const char* line(const Conv& conv, int64_t image, int64_t row) const {
    return data + (image * conv.height + row) * line_bytes;
  }
};

// `count` numbers that lie one after another, into the tile in their order. Whole vectors are written, up to 60 bytes too
// many, for which the tile has room: what follows is written later. `end`: that of the picture.
template <class C>
SEPWISE_INLINE void copy_numbers(const char* from, const char* end, int64_t count, char* to) {
  constexpr int64_t L = C::V::L;
  for (; count > 0; count -= L, from += L * C::Input::bytes, to += L * C::Mid::bytes) {
    const bool whole = end - from >= L * C::Input::bytes;
    C::Mid::store_in_order(to, whole ? C::Input::load_in_order(from) : C::Input::load_in_order_first(from, count));
  }
}

// So many pixels of a line, all their channels.
template <class C>
SEPWISE_INLINE void copy_line(const Conv& conv, const Picture<C>& x, const char* from, int64_t pixels, char* to) {
  if (x.pixel_bytes == conv.channels * C::Input::bytes)
    return copy_numbers<C>(from, x.end, pixels * conv.channels, to);
  for (int64_t p = 0; p < pixels; p++, from += x.pixel_bytes, to += conv.channels * C::Mid::bytes)
    copy_numbers<C>(from, x.end, conv.channels, to);
}

// For each pixel of a region its patch, with zeros outside of the picture and up to a whole word.
template <class C>
void gather_region(const Conv& conv, const Picture<C>& x, const Region& region, Tile tile) {
  const int64_t tap_bytes = conv.channels * C::Mid::bytes;
  const int64_t patch_bytes = conv.mid_channels() * C::Mid::bytes, rest = -patch_bytes & 3;
  const int64_t step = conv.stride_w * x.pixel_bytes;
  for (int64_t i = 0; i < region.count; i++) {
    const RowPiece& piece = region.pieces[i];
    const int64_t left = piece.first * conv.stride_w - conv.pad_left;
    // Patches of pixels `first` to `last` of the piece lie between the left and the right end of the picture.
    const int64_t first = left < 0 ? ceil_divide(-left, conv.stride_w) : 0, room = conv.width - conv.kernel_w - left;
    const int64_t last = conv.dilation_w > 1 || room < 0 ? -1 : room / conv.stride_w;
    for (int64_t u = 0; u < conv.kernel_h; u++) {
      const int64_t row = piece.row * conv.stride_h - conv.pad_top + u * conv.dilation_h;
      const bool inside = row >= 0 && row < conv.height;
      const char* line = x.line(conv, piece.image, row);
      const char* from = line + left * x.pixel_bytes;
      char* to = tile.data + u * conv.kernel_w * tap_bytes;
      for (int64_t p = 0; p < piece.length; p++, from += step, to += tile.row_bytes) {
        if (inside && p >= first && p <= last) {
          copy_line<C>(conv, x, from, conv.kernel_w, to);
          continue;
        }
        for (int64_t v = 0; v < conv.kernel_w; v++) {
          const int64_t column = left + p * conv.stride_w + v * conv.dilation_w;
          if (inside && column >= 0 && column < conv.width)
            copy_numbers<C>(line + column * x.pixel_bytes, x.end, conv.channels, to + v * tap_bytes);
          else
            memset(to + v * tap_bytes, 0, tap_bytes);
        }
      }
    }
    for (int64_t p = 0; p < piece.length; p++, tile.data += tile.row_bytes)
      if (rest) memset(tile.data + patch_bytes, 0, rest);
  }
}

// Where pixels are whole words, patches need not be gathered: each kernel row meets a line of x, in which the patches of
// neighbouring pixels overlap. Lines are read where they lie; those that reach beyond the picture are copied first, with
// zeros outside.
template <class C>
struct Patches {
  const Conv* conv;
  int64_t line;   // bytes of a copied one, with room for what `copy_numbers` writes too much
  bool by_lines;  // false: they must be gathered

  static constexpr int64_t most_rows = 16, most_taps = 128;

  // `pixel_bytes`: of the picture. For pieces of at most so many pixels.
  Patches(const Conv& conv, int64_t pixel_bytes, int64_t pixels) : conv(&conv), line(0), by_lines(can(conv)) {
    const int64_t tap = conv.channels * C::Mid::bytes;
    line = (columns(pixels) * (tap > pixel_bytes ? tap : pixel_bytes) + 63) / 64 * 64 + 64;
  }
  int64_t bytes() const { return conv->kernel_h * line; }

  // Where rows of y are short, too few pixels would meet each panel.
  static bool can(const Conv& conv) {
    const bool goes_on = conv.kernel_w == 1 && conv.stride_w == 1 && conv.out_width == conv.width;
    const bool pays = conv.out_width >= 2 * C::rows || goes_on || conv.mid_channels() <= 192;
    const bool words = C::Mid::bytes == 4 || (C::Mid::bytes == 2 && conv.channels % 2 == 0);
    // Rows of a block 4096 bytes apart would share few lines of the nearest cache: up to a third slower, at times.
    const bool collides = conv.stride_w * conv.channels * C::Mid::bytes % 4096 == 0;
    return words && !collides && conv.gathered && pays && conv.kernel_h <= most_rows &&
           conv.kernel_h * conv.kernel_w <= most_taps;
  }

  // A region of y, `out` one pointer a pixel, so many channels from there on; `memory` has `bytes`.
  void multiply(const Picture<C>& x, const Region& region, char* memory, const MatmulCall& whole,
                const float* panels, char* const* out, int64_t out_channels, Ahead& ahead, Coming after) const {
    const char* lines[most_rows];
    const int64_t all = region.pixels();
    int64_t gaps[most_taps];
    for (int64_t i = 0; i < region.count;) {
      const RowPiece& piece = region.pieces[i++];
      int64_t length = piece.length;
      const bool stays = reads_in_place(piece);
      for (int64_t u = 0; u < conv->kernel_h; u++) lines[u] = line_of(x, piece, u, stays, memory + u * line);
      const int64_t pixel = stays ? x.pixel_bytes : conv->channels * C::Mid::bytes;
      // Rows of y that follow each other in memory, as what they read does.
      if (stays && is_inside(piece))
        for (; i < region.count && reads_in_place(region.pieces[i]) && is_inside(region.pieces[i]) &&
               first_of(x, region.pieces[i], 0) == lines[0] + length * conv->stride_w * pixel;
             i++)
          length += region.pieces[i].length;

      MatmulCall call = whole;
      call.row_bytes = conv->stride_w * pixel, call.gaps = gaps;
      const int64_t channels = conv->channels, tap = channels * C::Mid::bytes;
      const bool joined = pixel == tap && conv->dilation_w == 1;  // the taps of a kernel row lie side by side
      call.words = (joined ? conv->kernel_w * channels : channels) * C::Mid::bytes / 4;
      call.segments = joined ? conv->kernel_h : conv->kernel_h * conv->kernel_w;
      int64_t* gap = gaps;
      for (int64_t u = 0; u < conv->kernel_h; u++) {
        const char* at = lines[u] + call.words * 4;
        for (int64_t v = 1; !joined && v < conv->kernel_w; v++, at += conv->dilation_w * pixel)
          *gap++ = conv->dilation_w * pixel - tap;
        if (u + 1 < conv->kernel_h) *gap++ = lines[u + 1] - at;
      }
      matmul_range<C>(call, blocks_of<C>.at, lines[0], length, panels, out, out_channels, ahead,
                      i == region.count ? after : Coming{}, ceil_divide(all, length));
      out += length;
    }
  }

 private:
  int64_t columns(int64_t pixels) const {
    return (pixels - 1) * conv->stride_w + (conv->kernel_w - 1) * conv->dilation_w + 1;
  }
  int64_t left_of(const RowPiece& piece) const { return piece.first * conv->stride_w - conv->pad_left; }
  int64_t top_of(const RowPiece& piece) const { return piece.row * conv->stride_h - conv->pad_top; }
  const char* first_of(const Picture<C>& x, const RowPiece& piece, int64_t u) const {
    return x.line(*conv, piece.image, top_of(piece) + u * conv->dilation_h) + left_of(piece) * x.pixel_bytes;
  }
  // Whether it needs no column outside of the picture, and numbers lie in the picture as in a tile.
  bool reads_in_place(const RowPiece& piece) const {
    return C::Input::bytes == C::Mid::bytes && left_of(piece) >= 0 && left_of(piece) + columns(piece.length) <= conv->width;
  }
  bool is_inside(const RowPiece& piece) const {
    return top_of(piece) >= 0 && top_of(piece) + (conv->kernel_h - 1) * conv->dilation_h < conv->height;
  }
  // What kernel row `u` meets for the first pixel of a piece.
  const char* line_of(const Picture<C>& x, const RowPiece& piece, int64_t u, bool stays, char* to) const {
    const int64_t tap = conv->channels * C::Mid::bytes, all = columns(piece.length), left = left_of(piece);
    const int64_t row = top_of(piece) + u * conv->dilation_h;
    const int64_t begin = left < 0 ? -left : 0, end = conv->width - left < all ? conv->width - left : all;
    if (row < 0 || row >= conv->height || begin >= end) {
      memset(to, 0, all * (stays ? x.pixel_bytes : tap));
      return to;
    }
    if (stays) return first_of(x, piece, u);
    memset(to, 0, begin * tap);
    copy_line<C>(*conv, x, first_of(x, piece, u) + begin * x.pixel_bytes, end - begin, to + begin * tap);
    memset(to + end * tap, 0, (all - end) * tap);
    return to;
  }
};

}  // namespace
}  // namespace sepwise
