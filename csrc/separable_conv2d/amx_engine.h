// From a Task to y on AMX: tiles, depthwise step and packed weights as in engine.h; the matrix step is amx_matmul.h.
//
// A kernel is a configuration C as in engine.h, with `parts`, the bfloat16 numbers for each number of the tile, in the
// place of `rows` and `add_product`.
#pragma once

#include "amx_matmul.h"
#include "engine.h"

namespace sepwise {
namespace {

// About how many output pixels make a tile. The second cache holds it beside a panel of weights; a panel is used at
// least twice once it has come, more often where it comes from far.
template <class C>
int64_t amx_pixels(int64_t row_bytes, bool far_weights) {
  const int64_t budget = far_weights ? 768 * 1024 : 96 * 1024;
  const int64_t pixels = budget / row_bytes / 32 * 32;
  return pixels < 64 ? 64 : pixels < Region::most_pixels ? pixels : Region::most_pixels;
}

template <class C>
struct TileRun {
  static constexpr int64_t sums_bytes = 32 * 32 * 4;
  const Task* task;
  // Computes the marked pixels of a region from `exact`, those whose sums were not all finite; null: they stay.
  void (*again)(const Task& exact, const Region& region, const uint8_t* marks);
  const Task* exact;
  DepthwiseCall depthwise;
  DepthwiseKernel depthwise_kernel;
  TileCall matmul;
  const float* panels;
  Regions regions;
  int64_t next;

  void tile(const Region& region, Tile memory, float* sums) {
    const Conv& conv = task->conv;
    depthwise_region<C>(depthwise, depthwise_kernel, (const char*)task->x, region, memory);
    char* out[Region::most_pixels];
    const int64_t pixels = region.find_pixels(conv, task->y, conv.out_channels * C::Output::bytes, out);
    const bool finite = tile_range<C>(matmul, memory.data, pixels, panels, out, conv.out_channels, sums);
    if (!again || finite) return;
    // Pixel by pixel, so that no number depends on how y was cut into tiles.
    uint8_t marks[Region::most_pixels] = {};
    tile_range<C>(matmul, memory.data, pixels, panels, out, conv.out_channels, sums, marks);
    again(*exact, region, marks);
  }

  // One thread's share: the next tile that nobody has taken, until none is left.
  static void share(void* context, int64_t) {
    TileRun& run = *(TileRun*)context;
    const FlushSubnormals flush;
    const TilesInUse tiles;
    const int64_t row_bytes = run.matmul.row_bytes;
    char* memory = (char*)run.task->host.scratch(1, sums_bytes + round_up(run.regions.pixels(), 16) * row_bytes);
    Region region;
    for (;;) {
      const int64_t index = __atomic_fetch_add(&run.next, 1, __ATOMIC_RELAXED);
      if (index >= run.regions.count()) return;
      run.regions.get(index, region);
      run.tile(region, {memory + sums_bytes, row_bytes}, (float*)memory);
    }
  }
};

// `packed` is that of C.
template <class C>
void run_tiles(const Task& task, const void* packed,
               void (*again)(const Task&, const Region&, const uint8_t*) = nullptr, const Task* exact = nullptr) {
  const Conv& conv = task.conv;
  if (conv.out_pixels() == 0) return;
  const ChannelOrder<C> order(conv);
  const int64_t blocks = order.places() / 32;
  // An odd number of lines: sixteen rows of a tile then lie in different sets of the nearest cache.
  const int64_t row_bytes = (order.places() * C::Mid::bytes / alignment | 1) * alignment;
  const int64_t threads = task.host.threads;
  constexpr int64_t second_cache = 3 * 512 * 1024;  // of 2 MiB, what a tile leaves
  const bool far_weights = Packed<C>::panel_floats(conv) * 4 > second_cache;
  const float* weights = (const float*)packed;
  const int64_t pixel_bytes = conv.channels * C::Input::bytes;
  TileRun<C> run{.task = &task,
                 .again = again,
                 .exact = exact,
                 .depthwise = {&conv, weights, nullptr, ending_of(conv.between), pixel_bytes, conv.width * pixel_bytes},
                 .depthwise_kernel = depthwise_kernel<C>(conv),
                 .matmul = {blocks, ceil_divide(32, blocks), row_bytes, far_weights, ending_of(conv.activation)},
                 .panels = weights + Packed<C>::depthwise_floats(conv),
                 .regions = Regions(conv, amx_pixels<C>(row_bytes, far_weights), 32, threads),
                 .next = 0};
  const int64_t tiles = run.regions.count();
  task.host.parallel(tiles < threads ? tiles : threads, TileRun<C>::share, &run);
}

}  // namespace
}  // namespace sepwise
