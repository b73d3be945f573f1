// The pointwise step on AMX: up to 32 rows of the tile x a panel of up to 32 output channels -> y, in blocks of 2 x 2
// tiles of sums.
//
//     tiles 0 1   sums of pixels 0-15       4   pixels 0-15        6 7   weights of channels 0-15, 16-31
//     tiles 2 3   sums of pixels 16-31      5   pixels 16-31
//
// A row of the tile is blocks of 32 places, for each of them 64 bytes of every part; the panel has 16 words of every
// part for it (order.h, split.h). These parts are multiplied, in this order:
//
//     1 part    a0 b0
//     2 parts   a1 b0, a0 b0, a0 b1
//     3 parts   for all blocks a2 b0, a1 b0, a1 b1, a0 b1, a0 b2; then for all blocks a0 b0
//
// With three parts the sums stay small through the first five, so that rounding them costs nothing; all six at once
// would round each sum six times at full size for every block. That halves the error of long sums: over 1,024 channels
// 1.2e-7 of the norm instead of 2.5e-7, where float32 sums one after another have 5.9e-7. What is left out, a1 b2,
// a2 b1 and a2 b2, is below 2^-24 |a b|, and without a preferred sign. Each product has one operand in common with the
// one before it.
//
// Sums leave through memory: they are stored, and while the next block is multiplied they get the activation and go to
// y, a few rows at a time. Rows and channels beyond the last are computed and go nowhere.
#pragma once

#include "ending.h"
#include "formats.h"
#include "kernel.h"
#include "sixteen.h"
#include "tiles.h"

namespace sepwise {
namespace {

struct TileCall {
  int64_t blocks;     // of 32 places, in one row of the tile
  int64_t slice;      // rows of the last sums that leave while one block is multiplied
  int64_t row_bytes;  // from one row of the tile to the next
  bool far_weights;   // they do not fit the second cache: the next panel is fetched while this one is used
  Ending ending;
};

// The sums of one block on their way to y.
template <class C>
struct Leaving {
  using V = typename C::V;
  using F = typename V::F;
  const TileCall* call;
  float* sums;         // 32 rows of 32
  char* const* out;    // one pixel of y a row
  int64_t offset, channels, rows, done;
  F zero_or_nan;       // NaN once a sum was not finite
  uint8_t* marks;      // of the rows, or null: which of them had such a sum

  void begin(char* const* pixels, int64_t pixel_offset, int64_t channel_count, int64_t row_count, uint8_t* row_marks) {
    out = pixels, offset = pixel_offset, channels = channel_count, rows = row_count, done = 0, marks = row_marks;
    if (__builtin_expect(!call->ending.is_clamp, 0)) {
      for (int64_t r = 0; r < rows; r++) zero_or_nan = seen(zero_or_nan, r, first_of(r), second_of(r));
      activate<16, C::Output::is_bf16>(call->ending.activation, sums, 32 * rows);
    }
  }
  F first_of(int64_t row) const { return V::load(sums + 32 * row); }
  F second_of(int64_t row) const { return channels > 16 ? V::load(sums + 32 * row + 16) : F{}; }
  static bool is_nan(F v) { return _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q) != 0; }
  [[gnu::always_inline]] F seen(F before, int64_t row, F first, F second) {
    const F here = V::add_product(first * F{}, second, F{});
    if (__builtin_expect(marks != nullptr, 0)) marks[row] |= is_nan(here);
    return before + here;
  }

  // Up to `count` rows more.
  [[gnu::always_inline]] void some(int64_t count) {
    const Bounds<V> bounds(call->ending);
    const int64_t end = done + count < rows ? done + count : rows;
    F all = zero_or_nan;
    for (int64_t r = done; r < end; r++) {
      const F first = first_of(r), second = second_of(r);
      if (C::parts > 1) all = seen(all, r, first, second);
      const F y0 = bounds.clamp(first), y1 = bounds.clamp(second);
      if (channels == 32)
        C::Output::store(out[r] + offset, y0, y1);
      else
        C::Output::store_first(out[r] + offset, y0, y1, channels);
    }
    zero_or_nan = all;
    done = end > done ? end : done;
  }
};

// What a block needs beside its operands.
struct BlockPlace {
  char* const* out;  // its pixels of y: their lines are fetched while the sums are made
  int64_t offset, rows;
  const char* ahead;  // of the next panel
  int64_t ahead_lines;  // for each block of places
};

// PIXELS and CHANNELS: tiles of each. STREAM_PIXELS: the weights should stay in the nearest cache, else the pixels.
template <class C, int PIXELS, int CHANNELS, bool STREAM_PIXELS>
static __attribute__((noinline)) void tile_block(const TileCall& call, const char* tile, const float* panel,
                                                 Leaving<C>& leaving, const BlockPlace& place) {
  constexpr int64_t lanes = 16 * CHANNELS, word_bytes = 4 * lanes, part_bytes = 16 * word_bytes;
  constexpr int parts = C::parts;
  const int64_t row_bytes = call.row_bytes;
  const char *a = tile, *b = (const char*)(panel + lanes);

  auto weights_0 = [&](int part) __attribute__((always_inline)) {
    if constexpr (STREAM_PIXELS)
      SEPWISE_TILE_LOAD(6, b + part * part_bytes, word_bytes);
    else
      SEPWISE_TILE_LOAD_STREAMED(6, b + part * part_bytes, word_bytes);
  };
  auto weights_1 = [&](int part) __attribute__((always_inline)) {
    const char* second = b + part * part_bytes + 64;
    if constexpr (CHANNELS == 2 && STREAM_PIXELS) SEPWISE_TILE_LOAD(7, second, word_bytes);
    if constexpr (CHANNELS == 2 && !STREAM_PIXELS) SEPWISE_TILE_LOAD_STREAMED(7, second, word_bytes);
  };
  auto pixels_0 = [&](int part) __attribute__((always_inline)) {
    if constexpr (STREAM_PIXELS)
      SEPWISE_TILE_LOAD_STREAMED(4, a + part * 64, row_bytes);
    else
      SEPWISE_TILE_LOAD(4, a + part * 64, row_bytes);
  };
  auto pixels_1 = [&](int part) __attribute__((always_inline)) {
    const char* second = a + part * 64 + 16 * row_bytes;
    if constexpr (PIXELS == 2 && STREAM_PIXELS) SEPWISE_TILE_LOAD_STREAMED(5, second, row_bytes);
    if constexpr (PIXELS == 2 && !STREAM_PIXELS) SEPWISE_TILE_LOAD(5, second, row_bytes);
  };
  auto product_00 = []() __attribute__((always_inline)) { SEPWISE_TILE_PRODUCT(0, 4, 6); };
  auto product_01 = []() __attribute__((always_inline)) {
    if constexpr (CHANNELS == 2) SEPWISE_TILE_PRODUCT(1, 4, 7);
  };
  auto product_10 = []() __attribute__((always_inline)) {
    if constexpr (PIXELS == 2) SEPWISE_TILE_PRODUCT(2, 5, 6);
  };
  auto product_11 = []() __attribute__((always_inline)) {
    if constexpr (PIXELS == 2 && CHANNELS == 2) SEPWISE_TILE_PRODUCT(3, 5, 7);
  };
  // A product of parts: with both operands new, with the weights of the last one, with its pixels. Loads stand between
  // products, so that they run while the matrix unit is busy.
  auto multiply = [&](int pixel_part, int weight_part) __attribute__((always_inline)) {
    weights_0(weight_part), pixels_0(pixel_part), product_00();
    weights_1(weight_part), product_01();
    pixels_1(pixel_part), product_10(), product_11();
  };
  auto other_pixels = [&](int part) __attribute__((always_inline)) {
    pixels_0(part), product_00(), product_01();
    pixels_1(part), product_10(), product_11();
  };
  auto other_weights = [&](int part) __attribute__((always_inline)) {
    weights_0(part), product_00(), product_10();
    weights_1(part), product_01(), product_11();
  };

  const int64_t slice = call.slice;
  int64_t fetched = 0;
  const char* ahead = place.ahead;
  auto between = [&]() __attribute__((always_inline)) {
    for (const int64_t end = fetched + slice < place.rows ? fetched + slice : place.rows; fetched < end; fetched++) {
      __builtin_prefetch(place.out[fetched] + place.offset, 1);
      if (CHANNELS * 16 * C::Output::bytes > 64) __builtin_prefetch(place.out[fetched] + place.offset + 64, 1);
    }
    for (int64_t i = 0; i < place.ahead_lines; i++, ahead += 64) __builtin_prefetch(ahead, 0, 2);
    leaving.some(slice);
  };

  // The bias to all pixels: a stride of 0.
  SEPWISE_TILE_LOAD(0, panel, (int64_t)0);
  if constexpr (CHANNELS == 2) SEPWISE_TILE_LOAD(1, panel + 16, (int64_t)0);
  if constexpr (PIXELS == 2) SEPWISE_TILE_LOAD(2, panel, (int64_t)0);
  if constexpr (PIXELS == 2 && CHANNELS == 2) SEPWISE_TILE_LOAD(3, panel + 16, (int64_t)0);
  for (int64_t k = 0; k < call.blocks; k++, a += 64 * parts, b += part_bytes * parts) {
    if constexpr (parts == 1) {
      multiply(0, 0);
    } else if constexpr (parts == 2) {
      multiply(1, 0), other_pixels(0), other_weights(1);
    } else {
      multiply(2, 0), other_pixels(1), other_weights(1), other_pixels(0), other_weights(2);
    }
    between();
  }
  if constexpr (parts == 3) {
    a = tile, b = (const char*)(panel + lanes);
    for (int64_t k = 0; k < call.blocks; k++, a += 64 * parts, b += part_bytes * parts) multiply(0, 0);
  }
  SEPWISE_TILE_STORE(0, leaving.sums, (int64_t)128);
  if constexpr (CHANNELS == 2) SEPWISE_TILE_STORE(1, leaving.sums + 16, (int64_t)128);
  if constexpr (PIXELS == 2) SEPWISE_TILE_STORE(2, leaving.sums + 16 * 32, (int64_t)128);
  if constexpr (PIXELS == 2 && CHANNELS == 2) SEPWISE_TILE_STORE(3, leaving.sums + 16 * 32 + 16, (int64_t)128);
}

template <class C>
using TileBlock = void (*)(const TileCall&, const char*, const float*, Leaving<C>&, const BlockPlace&);

// Rows of the tile x all panels -> y, one pointer a row. The tile has memory for a multiple of 16 rows; what lies in
// rows beyond `pixels` does not matter. Returns whether all sums were finite, and marks the rows where they were not if
// there are `marks`; one part does not look.
template <class C>
bool tile_range(const TileCall& call, const char* tile, int64_t pixels, const float* panel, char* const* out,
                int64_t out_channels, float* sums, uint8_t* marks = nullptr) {
  static constexpr TileBlock<C> table[2][2][2] = {{{tile_block<C, 1, 1, false>, tile_block<C, 1, 1, true>},
                                                   {tile_block<C, 1, 2, false>, tile_block<C, 1, 2, true>}},
                                                  {{tile_block<C, 2, 1, false>, tile_block<C, 2, 1, true>},
                                                   {tile_block<C, 2, 2, false>, tile_block<C, 2, 2, true>}}};
  const bool several = pixels > 32;  // weights are used again by the next block of pixels
  const int64_t words = call.blocks * 16 * C::parts;
  Leaving<C> leaving{.call = &call, .sums = sums, .out = out, .offset = 0, .channels = 0, .rows = 0, .done = 0,
                     .zero_or_nan = {}, .marks = nullptr};
  for (int64_t first = 0; first < out_channels; first += 32) {
    const int64_t channels = out_channels - first < 32 ? out_channels - first : 32, lanes = channels > 16 ? 32 : 16;
    const int64_t offset = first * C::Output::bytes;
    const char* ahead = (const char*)(panel + (words + 1) * lanes);
    const bool fetch = call.far_weights && first + 32 < out_channels;
    const int64_t ahead_lines = fetch ? (C::parts * 32 + (pixels - 1) / 32) / ((pixels + 31) / 32) : 0;
    for (int64_t begin = 0; begin < pixels; begin += 32) {
      const int64_t rows = pixels - begin < 32 ? pixels - begin : 32;
      const BlockPlace place{out + begin, offset, rows, ahead, ahead_lines};
      table[rows > 16][channels > 16][several](call, tile + begin * call.row_bytes, panel, leaving, place);
      leaving.begin(out + begin, offset, channels, rows, marks ? marks + begin : nullptr);
      ahead += ahead_lines * 64 * call.blocks;
    }
    panel += (words + 1) * lanes;
  }
  leaving.some(32);
  return !leaving.is_nan(leaving.zero_or_nan);
}

}  // namespace
}  // namespace sepwise
