// The tile instructions of AMX, and what holds while they are used. Included only where the compiler may use them.
//
// A thread has eight tiles of 16 rows of 64 bytes. A product adds, for 16 pixels and 16 output channels,
//
//     sum[m][n] += sum over k of a[m][2k] * b[k][2n] + a[m][2k + 1] * b[k][2n + 1]        k, m, n = 0 ... 15
//
// of bfloat16 pairs in float32: the even and the odd half each add up on their own, starting at 0, one rounding for
// each product; then even + odd, then that to the sum. Subnormal numbers count as zero, whatever the thread's setting.
//
// The numbers of tiles are part of the instructions, so all of this is macros; the compiler knows nothing of the tiles,
// only that these statements stay in order. It does not know either that a load reads memory: what a load reads must
// have been written by another function that is not inlined, or by a tile.
#pragma once

#include <immintrin.h>
#include <stdint.h>

namespace sepwise {
namespace {

// Rows `stride` bytes apart; "streamed" asks the cache to give the lines up first.
#define SEPWISE_TILE_LOAD(tile, memory, stride) _tile_loadd(tile, memory, stride)
#define SEPWISE_TILE_LOAD_STREAMED(tile, memory, stride) _tile_stream_loadd(tile, memory, stride)
#define SEPWISE_TILE_STORE(tile, memory, stride) _tile_stored(tile, memory, stride)
#define SEPWISE_TILE_PRODUCT(sum, a, b) _tile_dpbf16ps(sum, a, b)

// While it lives, all eight tiles of this thread are whole. cpu_features.cpp has asked for the process's permission.
class TilesInUse {
 public:
  TilesInUse() {
    const Layout layout = {.palette = 1,
                           .first_row = 0,
                           .reserved = {},
                           .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
                           .rows = {16, 16, 16, 16, 16, 16, 16, 16}};
    // GCC 12's own intrinsic names only the first eight bytes as its input, and the rest is then never written.
    asm volatile("ldtilecfg %0" ::"m"(layout));
  }
  ~TilesInUse() { _tile_release(); }
  TilesInUse(const TilesInUse&) = delete;

 private:
  struct Layout {
    uint8_t palette, first_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
  };
  static_assert(sizeof(Layout) == 64);
};

}  // namespace
}  // namespace sepwise
