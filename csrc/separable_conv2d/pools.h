// The largest numbers under a window, in the place of a depthwise step: x -> y. Unlike there, all channels of a pixel are
// taken before the next one: little of x is shared, so what counts is that memory is read in its order.
#pragma once

#include "ending.h"
#include "kernel.h"
#include "regions.h"

namespace sepwise {
namespace {

// Where the taps of one axis lie inside the picture: `first` is that of tap 0 and may lie outside.
struct Taps {
  int64_t begin, end;

  Taps(int64_t first, int64_t taps, int64_t dilation, int64_t size) {
    begin = first < 0 ? ceil_divide(-first, dilation) : 0;
    end = first < size ? ceil_divide(size - first, dilation) : 0;
    if (end > taps) end = taps;
    if (begin > end) begin = end;
  }
};

// What does not change between the pixels of one call.
struct PoolCall {
  const Conv* conv;
  Ending ending;
  int64_t pixel_bytes, line_bytes;  // of x
};

// So many pairs of vectors of channels of one pixel of y.
template <class C, int PAIRS>
SEPWISE_INLINE void pool_block(const PoolCall& call, const char* from, const Taps& rows, const Taps& columns, char* out) {
  using V = typename C::V;
  constexpr int in_bytes = V::L * C::Input::bytes, out_bytes = V::L * C::Output::bytes;
  const int64_t down = call.line_bytes * call.conv->dilation_h, right = call.pixel_bytes * call.conv->dilation_w;
  typename V::F largest[PAIRS][2];
#pragma GCC unroll 8
  for (int i = 0; i < 2 * PAIRS; i++) largest[i / 2][i % 2] = V::fill(-__builtin_inff());
  for (int64_t u = rows.begin; u < rows.end; u++)
    for (int64_t v = columns.begin; v < columns.end; v++) {
      const char* p = from + u * down + v * right;
#pragma GCC unroll 8
      for (int i = 0; i < 2 * PAIRS; i++)
        largest[i / 2][i % 2] = V::larger(largest[i / 2][i % 2], C::Input::load_in_order(p + i * in_bytes));
    }
  activate_sums<V, typename C::Output>(call.ending, largest);
  const Bounds<V> bounds(call.ending);
#pragma GCC unroll 4
  for (int i = 0; i < PAIRS; i++)
    C::Output::store(out + 2 * i * out_bytes, bounds.clamp(largest[i][0]), bounds.clamp(largest[i][1]));
}

// The last `count` channels, fewer than two vectors of them.
template <class C>
void pool_rest(const PoolCall& call, const char* from, const Taps& rows, const Taps& columns, int64_t count, char* out) {
  using V = typename C::V;
  const int64_t down = call.line_bytes * call.conv->dilation_h, right = call.pixel_bytes * call.conv->dilation_w;
  typename V::F largest[1][2] = {{V::fill(-__builtin_inff()), V::fill(-__builtin_inff())}};
  for (int64_t u = rows.begin; u < rows.end; u++)
    for (int64_t v = columns.begin; v < columns.end; v++)
      for (int64_t i = 0; i * V::L < count; i++) {
        const char* p = from + u * down + v * right + i * V::L * C::Input::bytes;
        largest[0][i] = V::larger(largest[0][i], C::Input::load_in_order_first(p, count - i * V::L));
      }
  activate_sums<V, typename C::Output>(call.ending, largest);
  const Bounds<V> bounds(call.ending);
  C::Output::store_first(out, bounds.clamp(largest[0][0]), bounds.clamp(largest[0][1]), count);
}

// The pixels of a region, `out` one pointer each.
template <class C>
void pool_region(const PoolCall& call, const char* x, const Region& region, char* const* out) {
  constexpr int64_t width = 2 * C::V::L;
  const Conv& conv = *call.conv;
  for (int64_t i = 0; i < region.count; i++) {
    const RowPiece& piece = region.pieces[i];
    const int64_t top = piece.row * conv.stride_h - conv.pad_top;
    const char* line = x + (piece.image * conv.height + top) * call.line_bytes;
    const Taps rows(top, conv.kernel_h, conv.dilation_h, conv.height);
    for (int64_t p = 0; p < piece.length; p++, out++) {
      const int64_t left = (piece.first + p) * conv.stride_w - conv.pad_left;
      const Taps columns(left, conv.kernel_w, conv.dilation_w, conv.width);
      const char* from = line + left * call.pixel_bytes;
      char* to = *out;
      int64_t left_over = conv.channels;
      for (; left_over >= 4 * width; left_over -= 4 * width) {
        pool_block<C, 4>(call, from, rows, columns, to);
        from += 4 * width * C::Input::bytes, to += 4 * width * C::Output::bytes;
      }
      for (; left_over >= width; left_over -= width) {
        pool_block<C, 1>(call, from, rows, columns, to);
        from += width * C::Input::bytes, to += width * C::Output::bytes;
      }
      if (left_over) pool_rest<C>(call, from, rows, columns, left_over, to);
    }
  }
}

}  // namespace
}  // namespace sepwise
