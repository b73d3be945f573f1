// The largest numbers under a window, in the place of a depthwise step: x -> y. Unlike there, all channels of a pixel are
// taken before the next one: little of x is shared, so what counts is that memory is read in its order.
#pragma once

#include "depthwise.h"
#include "ending.h"
#include "kernel.h"
#include "regions.h"

namespace sepwise {
namespace {

// So many pairs of vectors of channels of one pixel of y; where PARTIAL, of one pair the first `count` channels.
template <class C, int PAIRS, bool PARTIAL>
SEPWISE_INLINE void pool_block(const DepthwiseCall& call, const char* from, const Taps& rows, const Taps& columns,
                               int64_t count, char* out) {
  static_assert(PAIRS == 1 || !PARTIAL);
  using V = typename C::V;
  constexpr int in_bytes = V::L * C::Input::bytes, out_bytes = V::L * C::Output::bytes;
  const int64_t down = call.line_bytes * call.conv->dilation_h, right = call.pixel_bytes * call.conv->dilation_w;
  const int64_t second = count > V::L ? count - V::L : 0;
  typename V::F largest[PAIRS][2];
#pragma GCC unroll 8
  for (int i = 0; i < 2 * PAIRS; i++) largest[i / 2][i % 2] = V::fill(-__builtin_inff());
  for (int64_t u = rows.begin; u < rows.end; u++)
    for (int64_t v = columns.begin; v < columns.end; v++) {
      const char* p = from + u * down + v * right;
#pragma GCC unroll 8
      for (int i = 0; i < 2 * PAIRS; i++) {
        const char* at = p + i * in_bytes;
        typename V::F& most = largest[i / 2][i % 2];
        if constexpr (PARTIAL)
          most = V::larger(most, C::Input::load_in_order_first(at, i ? second : count));
        else
          most = V::larger(most, C::Input::load_in_order(at));
      }
    }
  activate_sums<V, typename C::Output>(call.ending, largest);
  const Bounds<V> bounds(call.ending);
#pragma GCC unroll 4
  for (int i = 0; i < PAIRS; i++) {
    const typename V::F a = bounds.clamp(largest[i][0]), b = bounds.clamp(largest[i][1]);
    if constexpr (PARTIAL)
      C::Output::store_first(out, a, b, count);
    else
      C::Output::store(out + 2 * i * out_bytes, a, b);
  }
}

// The pixels of a region, `out` one pointer each.
template <class C>
void pool_region(const DepthwiseCall& call, const char* x, const Region& region, char* const* out) {
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
        pool_block<C, 4, false>(call, from, rows, columns, 4 * width, to);
        from += 4 * width * C::Input::bytes, to += 4 * width * C::Output::bytes;
      }
      for (; left_over >= width; left_over -= width) {
        pool_block<C, 1, false>(call, from, rows, columns, width, to);
        from += width * C::Input::bytes, to += width * C::Output::bytes;
      }
      if (left_over) pool_block<C, 1, true>(call, from, rows, columns, left_over, to);
    }
  }
}

}  // namespace
}  // namespace sepwise
