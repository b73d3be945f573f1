// The depthwise step of a run of output pixels: x -> the tile, one row of the tile for each pixel.
//
// A block is up to `columns` neighbouring pixels of one output row x 2 L channels, all sums in registers: each vector of
// x is loaded once for each kernel row and used by every tap that meets it. Kernels of 3, 5 and 7 at strides 1 and 2 are
// unrolled (`Fixed`); any other kernel, stride and dilation takes the same path with loops (`Any`). Zero padding costs
// no memory: rows outside the picture are left out of the loop, columns outside are skipped by a bit mask (`EDGE`).
// Packed weights of a block: bias (2 L), then taps (kernel_h * kernel_w x 2 L), all float32.
#pragma once

#include "ending.h"
#include "formats.h"
#include "kernel.h"
#include "order.h"
#include "regions.h"

namespace sepwise {
namespace {

// Bit i: index first + i lies in [0, size); for count <= 32 indices.
SEPWISE_INLINE uint32_t inside(int64_t first, int64_t count, int64_t size) {
  const int64_t begin = first < 0 ? -first : 0, end = size - first < count ? size - first : count;
  return begin >= end ? 0 : (uint32_t)((uint64_t(1) << end) - (uint64_t(1) << begin));
}

// Which taps of one axis lie inside the picture, where tap 0 lies at `first`.
struct Taps {
  int64_t begin, end;

  [[gnu::always_inline]] Taps(int64_t first, int64_t taps, int64_t dilation, int64_t size)
      : begin(first < 0 ? -first : 0), end(first < size ? size - first : 0) {
    if (dilation != 1) begin = ceil_divide(begin, dilation), end = ceil_divide(end, dilation);
    if (end > taps) end = taps;
    if (begin > end) begin = end;
  }
};

struct Tile {
  char* data;
  int64_t row_bytes;
};

// What does not change between the blocks of one call.
struct DepthwiseCall {
  const Conv* conv;
  const float* weights;
  const float* more_weights;  // of C::Rows
  Ending ending;  // between the steps
  int64_t pixel_bytes, line_bytes;  // of x
  int64_t full = 0, rest = 0;       // blocks of channels, and channels beside them
};

struct Block {
  const char* corner;    // pixel of x that meets the first tap of the first output; may lie outside the picture
  Taps rows;
  int64_t first_column;  // of x, for the first tap of the first output; may be negative
  uint32_t inside;       // `Fixed`: bit i says that column first_column + i lies inside the picture
  char* out;
};

template <int K, int S>
struct Fixed {
  static constexpr bool fixed = true;
  static constexpr int kernel = K, stride = S;
};
struct Any {
  static constexpr bool fixed = false;
  static constexpr int kernel = 1, stride = 1;
};

template <class C, class G, int COLUMNS, bool EDGE, int VECTORS, bool PARTIAL>
SEPWISE_INLINE void depthwise_block(const DepthwiseCall& call, const Block& block, const float* weights,
                                    int64_t channel_bytes, int64_t count, char* out, int64_t row_bytes) {
  using V = typename C::V;
  using F = typename V::F;
  constexpr int L = V::L;
  F sum[COLUMNS][VECTORS];
#pragma GCC unroll 16
  for (int o = 0; o < COLUMNS; o++)
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; v++) sum[o][v] = V::load(weights + v * L);

  const Conv& conv = *call.conv;
  const int64_t kernel_w = G::fixed ? G::kernel : conv.kernel_w;
  const float* taps = weights + 2 * L + block.rows.begin * kernel_w * 2 * L;
  const int64_t step = G::fixed ? call.line_bytes : call.line_bytes * conv.dilation_h;
  const char* line = block.corner + block.rows.begin * step + channel_bytes;

  for (int64_t ky = block.rows.begin; ky < block.rows.end; ky++, line += step) {
    if constexpr (G::fixed) {
      constexpr int reach = (COLUMNS - 1) * G::stride + G::kernel;
      const char* pixel = line;
      F tap[G::kernel][VECTORS];
#pragma GCC unroll 8
      for (int kx = 0; kx < G::kernel; kx++)
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; v++) {
          tap[kx][v] = V::load(taps + (kx * 2 + v) * L);
          V::keep(tap[kx][v]);
        }
#pragma GCC unroll 32
      for (int i = 0; i < reach; i++, pixel += call.pixel_bytes) {
        if (EDGE && !(block.inside >> i & 1)) continue;
        F x[2];
        C::Input::template load<VECTORS, PARTIAL>(pixel, count, x);
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; v++) V::keep(x[v]);
#pragma GCC unroll 16
        for (int o = 0; o < COLUMNS; o++) {
          const int kx = i - o * G::stride;
          if (kx >= 0 && kx < G::kernel)
#pragma GCC unroll 2
            for (int v = 0; v < VECTORS; v++)
              sum[o][v] = V::add_product(sum[o][v], x[v], tap[kx][v]);
        }
      }
      taps += G::kernel * 2 * L;
    } else {
      for (int64_t kx = 0; kx < kernel_w; kx++, taps += 2 * L) {
        F tap[2];
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; v++) tap[v] = V::load(taps + v * L);
#pragma GCC unroll 16
        for (int o = 0; o < COLUMNS; o++) {
          const int64_t offset = o * conv.stride_w + kx * conv.dilation_w;
          const int64_t column = block.first_column + offset;
          if (EDGE && (column < 0 || column >= conv.width)) continue;
          F x[2];
          C::Input::template load<VECTORS, PARTIAL>(line + offset * call.pixel_bytes, count, x);
#pragma GCC unroll 2
          for (int v = 0; v < VECTORS; v++) sum[o][v] = V::add_product(sum[o][v], x[v], tap[v]);
        }
      }
    }
  }

  activate_sums<V, typename C::Mid>(call.ending, sum);
  const Bounds<V> bounds(call.ending);
#pragma GCC unroll 16
  for (int o = 0; o < COLUMNS; o++) {
    F mid[2];
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; v++) mid[v] = bounds.clamp(sum[o][v]);
    C::Mid::template store<VECTORS>(out + o * row_bytes, mid);
  }
}

// The channels that do not fill a block of them, for one block of pixels; columns outside are looked for always.
template <class C, class G, int COLUMNS>
static __attribute__((noinline)) void depthwise_rest(const DepthwiseCall& call, const Block& block,
                                                     const float* weights, int64_t count, int64_t channel_bytes,
                                                     char* out, int64_t row_bytes) {
  using Order = ChannelOrder<C>;
  const Conv& conv = *call.conv;
  for (int64_t j = 0; j < conv.multiplier; j++, weights += Order::filter(conv)) {
    if constexpr (Order::may_be_narrow) {
      if (Order::is_narrow(count)) {
        depthwise_block<C, G, COLUMNS, true, 1, true>(call, block, weights, channel_bytes, count, out, row_bytes);
        out += C::V::L * C::Mid::bytes;
        continue;
      }
    }
    depthwise_block<C, G, COLUMNS, true, 2, true>(call, block, weights, channel_bytes, count, out, row_bytes);
    out += Order::width * C::Mid::bytes;
  }
}

// Some channels of one block of pixels.
template <class C, class G, int COLUMNS, bool EDGE>
static __attribute__((noinline)) void depthwise_pixels(const DepthwiseCall& call, const Block& block, int64_t row_bytes) {
  constexpr int width = 2 * C::V::L;
  const Conv& conv = *call.conv;
  const int64_t filter = ChannelOrder<C>::filter(conv);
  const int64_t multiplier = conv.multiplier;
  const float* weights = call.weights;
  char* out = block.out;
  int64_t channel_bytes = 0;
  for (int64_t b = 0; b < call.full; b++, channel_bytes += width * C::Input::bytes)
    for (int64_t j = 0; j < multiplier; j++, weights += filter, out += width * C::Mid::bytes)
      depthwise_block<C, G, COLUMNS, EDGE, 2, false>(call, block, weights, channel_bytes, width, out, row_bytes);
  if (call.rest) depthwise_rest<C, G, COLUMNS>(call, block, weights, call.rest, channel_bytes, out, row_bytes);
}

using DepthwisePixels = void (*)(const DepthwiseCall&, const Block&, int64_t row_bytes);

template <class C, class G, int COLUMNS>
struct DepthwiseTable {
  static void set(DepthwisePixels (*table)[2]) {
    DepthwiseTable<C, G, COLUMNS - 1>::set(table);
    table[COLUMNS][0] = depthwise_pixels<C, G, COLUMNS, false>;
    table[COLUMNS][1] = depthwise_pixels<C, G, COLUMNS, true>;
  }
};
template <class C, class G>
struct DepthwiseTable<C, G, 0> {
  static void set(DepthwisePixels (*)[2]) {}
};

// The functions of one geometry: table[columns][edge], and the most columns of a block.
struct DepthwiseKernel {
  static constexpr int most = 8;
  DepthwisePixels table[most + 1][2];
  int64_t columns;
  bool fixed;
};

template <class C, class G, int COLUMNS>
DepthwiseKernel depthwise_kernel_of() {
  static_assert(COLUMNS <= DepthwiseKernel::most);
  DepthwiseKernel kernel;
  DepthwiseTable<C, G, COLUMNS>::set(kernel.table);
  kernel.columns = COLUMNS;
  kernel.fixed = G::fixed;
  return kernel;
}

template <class C>
DepthwiseKernel depthwise_kernel(const Conv& conv) {
  const bool plain = conv.dilation_h == 1 && conv.dilation_w == 1 && conv.kernel_h == conv.kernel_w &&
                     conv.stride_h == conv.stride_w;
  if (plain && conv.stride_w == 1) {
    if (conv.kernel_w == 3) return depthwise_kernel_of<C, Fixed<3, 1>, C::columns>();
    if (conv.kernel_w == 5) return depthwise_kernel_of<C, Fixed<5, 1>, C::columns>();
    if (conv.kernel_w == 7) return depthwise_kernel_of<C, Fixed<7, 1>, (C::columns < 7 ? C::columns : 7)>();
  }
  if (plain && conv.stride_w == 2) {
    if (conv.kernel_w == 3) return depthwise_kernel_of<C, Fixed<3, 2>, C::columns>();
    if (conv.kernel_w == 5) return depthwise_kernel_of<C, Fixed<5, 2>, C::columns>();
    if (conv.kernel_w == 7) return depthwise_kernel_of<C, Fixed<7, 2>, (C::columns < 7 ? C::columns : 7)>();
  }
  return depthwise_kernel_of<C, Any, C::columns>();
}

// One block of a row piece: `columns` pixels from column `first` of y.
SEPWISE_INLINE void depthwise_columns(const DepthwiseCall& call, const DepthwiseKernel& kernel, const char* x,
                                      const RowPiece& piece, int64_t first, int64_t columns, char* out,
                                      int64_t row_bytes) {
  const Conv& conv = *call.conv;
  const int64_t top = piece.row * conv.stride_h - conv.pad_top;
  const int64_t left = first * conv.stride_w - conv.pad_left;
  const int64_t reach = (columns - 1) * conv.stride_w + (conv.kernel_w - 1) * conv.dilation_w + 1;
  const bool edge = left < 0 || left + reach > conv.width;
  Block block{.corner = x + (piece.image * conv.height + top) * call.line_bytes + left * call.pixel_bytes,
              .rows = Taps(top, conv.kernel_h, conv.dilation_h, conv.height),
              .first_column = left,
              .inside = edge && kernel.fixed ? inside(left, reach, conv.width) : ~0u,
              .out = out};
  kernel.table[columns][edge](call, block, row_bytes);
}

// For kernels that compute every row of y by itself; row_pairs.h is the other way, named by C::Rows.
struct SingleRows {
  static int64_t floats(const Conv&) { return 0; }
  static void pack(const Conv&, const Weights&, float*) {}
  static bool can(const DepthwiseCall&) { return false; }
  static void columns(const DepthwiseCall&, const char*, const RowPiece&, int64_t, int64_t, char*, char*, int64_t) {}
};

template <class C>
struct RowsOf {
  using type = SingleRows;
};
template <class C>
  requires requires { typename C::Rows; }
struct RowsOf<C> {
  using type = typename C::Rows;
};

// Some channels of all pixels of a region. Blocks below each other follow each other: they share x.
template <class C>
void depthwise_some(const DepthwiseCall& call, const DepthwiseKernel& kernel, const char* x, const Region& region,
                    Tile tile) {
  char* out = tile.data;
  using Rows = typename RowsOf<C>::type;
  const bool by_pairs = Rows::can(call);
  for (int64_t i = 0; i < region.count;) {
    const RowPiece& piece = region.pieces[i];
    int64_t same = 1;
    while (i + same < region.count && region.pieces[i + same].first == piece.first &&
           region.pieces[i + same].length == piece.length)
      same++;
    const int64_t parts = ceil_divide(piece.length, kernel.columns);
    for (int64_t part = 0; part < parts; part++) {
      const int64_t from = piece.length * part / parts, columns = piece.length * (part + 1) / parts - from;
      for (int64_t s = 0; s < same; s++) {
        const RowPiece& row = region.pieces[i + s];
        char* to = out + (s * piece.length + from) * tile.row_bytes;
        if (by_pairs && s + 1 < same && region.pieces[i + s + 1].image == row.image) {
          Rows::columns(call, x, row, piece.first + from, columns, to, to + piece.length * tile.row_bytes,
                        tile.row_bytes);
          s++;
        } else {
          depthwise_columns(call, kernel, x, row, piece.first + from, columns, to, tile.row_bytes);
        }
      }
    }
    out += same * piece.length * tile.row_bytes;
    i += same;
  }
}

// How many blocks of channels pass a region together. All, unless what a block of pixels reads of them would leave the
// nearest cache before the block below reads it again.
template <class C>
int64_t blocks_together(const DepthwiseCall& call, const DepthwiseKernel& kernel, int64_t blocks) {
  constexpr int64_t near = 40 * 1024, share = 16 * 1024;
  const Conv& conv = *call.conv;
  if (RowsOf<C>::type::can(call)) return blocks;  // two rows at a time, of all channels
  const int64_t reach = (kernel.columns - 1) * conv.stride_w + (conv.kernel_w - 1) * conv.dilation_w + 1;
  const int64_t bytes = reach * conv.kernel_h * ChannelOrder<C>::width * C::Input::bytes;
  if (blocks * bytes <= near) return blocks;
  return ceil_divide(blocks, ceil_divide(blocks, bytes < share ? share / bytes : 1));
}

// All pixels of a region, into rows 0, 1, ... of the tile.
template <class C>
void depthwise_region(const DepthwiseCall& whole, const DepthwiseKernel& kernel, const char* x, const Region& region,
                      Tile tile) {
  using Order = ChannelOrder<C>;
  const Order order(*whole.conv);
  const int64_t blocks = order.blocks(), together = blocks_together<C>(whole, kernel, blocks);
  DepthwiseCall call = whole;
  for (int64_t begin = 0; begin < blocks; begin += together) {
    const bool ends = begin + together >= blocks;
    call.full = ends ? order.full - begin : together, call.rest = ends ? order.rest : 0;
    depthwise_some<C>(call, kernel, x, region, tile);
    call.weights += together * order.multiplier * Order::filter(*whole.conv);
    x += together * Order::width * C::Input::bytes;
    tile.data += together * order.multiplier * Order::width * C::Mid::bytes;
  }
}

}  // namespace
}  // namespace sepwise
