// From a Task to y: packs the weights, cuts the output into tiles, runs depthwise and pointwise on each.
//
// A tile is a region of output pixels (regions.h). Its depthwise results stay in this thread's cache and are multiplied
// at once with all panels of the pointwise weights, so the channels between never reach memory. A kernel is a
// configuration C:
//
//     V                    the machine's vectors (vector.h)
//     Input, Mid, Output   number formats (formats.h)
//     columns, rows        register blocks of the two steps: output pixels
//     add_product          sum + word * weight of the matrix step
//     pack_number          puts one weight of the matrix step where add_product meets it
//     Rows                 where there is one: a depthwise step of two rows of y at a time (row_pairs.h)
#pragma once

#include "denormals.h"
#include "dense.h"
#include "depthwise.h"
#include "kernel.h"
#include "matmul.h"
#include "order.h"
#include "pools.h"
#include "regions.h"
#include "steps.h"

namespace sepwise {
namespace {

constexpr int64_t alignment = 64;
constexpr int64_t far_bytes = 1 << 20;  // a y so large does not stay in the second cache
SEPWISE_INLINE int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

// Packed weights: the panels of the expanding step, then, on a boundary of `alignment`, the depthwise part, the panels of
// the pointwise part, and what C::Rows adds.
template <class C>
struct Packed {
  using Order = ChannelOrder<C>;
  static int64_t depthwise_floats(const Conv& conv) {
    return conv.has_depthwise() ? Order(conv).blocks() * conv.multiplier * Order::filter(conv) : 0;
  }
  static int64_t panel_floats(const Conv& conv) {
    if (conv.bare) return 0;
    const int64_t left = conv.out_channels % Order::width;
    const int64_t full = conv.out_channels / Order::width;
    const int64_t lanes = full * Order::width + (left == 0 ? 0 : left <= C::V::L ? C::V::L : Order::width);
    return (Dense<C>::words(conv) + 1) * lanes;
  }
  using Rows = typename RowsOf<C>::type;
  static int64_t expand_floats(const Conv& conv) {
    return conv.expanded ? round_up(panel_floats(Expansion<C>::step_of(conv)), alignment / 4) : 0;
  }
  static size_t bytes(const Conv& conv) {
    return (expand_floats(conv) + depthwise_floats(conv) + panel_floats(conv) + Rows::floats(conv)) * 4;
  }
};

template <class C>
void pack_depthwise(const Conv& conv, const Weights& weights, float* out) {
  using Order = ChannelOrder<C>;
  const int64_t taps = conv.kernel_h * conv.kernel_w, filter = Order::filter(conv);
  for (int64_t c = 0; c < conv.channels; c++)
    for (int64_t j = 0; j < conv.multiplier; j++) {
      const int64_t q = c * conv.multiplier + j;
      float* to = out + (c / Order::width * conv.multiplier + j) * filter + C::Input::position(c % Order::width);
      if (weights.depthwise_bias) to[0] = C::Input::number(weights.depthwise_bias, q);
      for (int64_t t = 0; t < taps; t++)
        to[(t + 1) * Order::width] = C::Input::number(weights.depthwise, q * taps + t);
    }
}

template <class C>
void pack_pointwise(const Conv& conv, const Weights& weights, float* out) {
  if (Winograd<C>::can(conv)) return Winograd<C>::pack(conv, weights, out);
  const ChannelOrder<C> order(conv);
  constexpr int64_t width = ChannelOrder<C>::width;
  const int64_t taps = conv.kernel_h * conv.kernel_w;
  for (int64_t first = 0; first < conv.out_channels; first += width) {
    const int64_t channels = conv.out_channels - first < width ? conv.out_channels - first : width;
    const int64_t lanes = channels <= C::V::L ? C::V::L : width;
    for (int64_t o = 0; weights.bias && o < channels; o++) out[o] = C::Input::number(weights.bias, first + o);
    for (int64_t c = 0; c < conv.mid_channels() / conv.multiplier; c++)
      for (int64_t j = 0; j < conv.multiplier; j++) {
        const int64_t place = order.place(c, j);
        const int64_t q = conv.gathered ? c % conv.channels * taps + c / conv.channels : c * conv.multiplier + j;
        for (int64_t o = 0; o < channels; o++) {
          const float number = C::Input::number(weights.pointwise, (first + o) * conv.mid_channels() + q);
          C::pack_number(out + lanes, lanes, o, place, number);
        }
      }
    out += (order.words() + 1) * lanes;
  }
}

template <class C>
void pack(const Conv& conv, const Weights& weights, void* packed) {
  memset(packed, 0, Packed<C>::bytes(conv));
  float* part = (float*)packed;
  if (conv.expanded) {
    const Weights expand{nullptr, nullptr, weights.expand, weights.expand_bias};
    pack_pointwise<C>(Expansion<C>::step_of(conv), expand, part);
    part += Packed<C>::expand_floats(conv);
  }
  if (conv.has_depthwise()) pack_depthwise<C>(conv, weights, part);
  part += Packed<C>::depthwise_floats(conv);
  if (!conv.bare) pack_pointwise<C>(conv, weights, part);
  Packed<C>::Rows::pack(conv, weights, part + Packed<C>::panel_floats(conv));
}

// About how many output pixels make a tile. Small enough for the tile to stay in the nearest cache, large enough for a
// panel of weights to be used several times once it has come.
template <class C>
int64_t tile_pixels(const Conv& conv, int64_t row_bytes) {
  constexpr int64_t near = 96 * 1024, far = 224 * 1024;
  const int64_t budget = Packed<C>::panel_floats(conv) * 4 <= 512 * 1024 ? near : far;
  int64_t pixels = budget / row_bytes / C::rows * C::rows;
  if (pixels < 2 * C::rows) pixels = 2 * C::rows;
  return pixels < Region::most_pixels ? pixels : Region::most_pixels / C::rows * C::rows;
}

template <class C>
struct Run {
  const Task* task;
  DepthwiseCall depthwise;
  DepthwiseKernel depthwise_kernel;
  MatmulCall matmul;
  const float* panels;
  Regions regions;
  int64_t places;  // in a row of the tile
  int64_t next;
  Expansion<C> expansion;
  Descent descent;
  Dense<C> dense;
  int64_t slices;  // of the panels of a tile, where there are fewer tiles than threads: one for each thread

  int64_t tile_bytes(int64_t pixels) const {
    return task->conv.gathered ? dense.bytes(pixels, matmul.row_bytes) : pixels * matmul.row_bytes;
  }

  // Whether these pixels of y, where nothing follows the depthwise step, lie as rows of the tile do.
  bool is_tile(char* const* out, int64_t pixels) const {
    const Conv& conv = task->conv;
    const int64_t pixel_bytes = conv.channels * C::Output::bytes;
    return C::Input::keeps_order && C::Mid::bytes == C::Output::bytes && conv.bare &&
           conv.channels % ChannelOrder<C>::width == 0 && out[pixels - 1] - out[0] == (pixels - 1) * pixel_bytes;
  }

  // `x`: what the step with a kernel reads. `is_last`: of this thread's tiles.
  void tile(const Region& region, const char* x, Tile memory, Ahead& ahead, bool is_last, int64_t slice = 0) {
    const Conv& conv = task->conv;
    char* out[Region::most_pixels];
    const int64_t pixels = region.find_pixels(conv, task->y, conv.out_channels * C::Output::bytes, out);
    const Coming after{(const char*)task->soon, is_last ? (int64_t)task->soon_bytes / 64 : 0};
    const Picture<C> picture(conv, x, depthwise.pixel_bytes, depthwise.line_bytes);
    constexpr int64_t width = 2 * C::V::L;
    const int64_t all = ceil_divide(conv.out_channels, width);
    const int64_t first = all * slice / slices * width, end = all * (slice + 1) / slices * width;
    const int64_t channels = (end < conv.out_channels ? end : conv.out_channels) - first;
    const float* part = panels + (matmul.words + 1) * first;
    for (int64_t p = 0; first > 0 && p < pixels; p++) out[p] += first * C::Output::bytes;
    if (conv.gathered)
      return dense.multiply(picture, region, memory, matmul, part, out, channels, ahead, after);
    if (conv.pooled) return pool_region<C>(depthwise, x, region, out);
    if (is_tile(out, pixels))
      return depthwise_region<C>(depthwise, depthwise_kernel, x, region, {out[0], conv.channels * C::Output::bytes});
    if (conv.has_depthwise())
      depthwise_region<C>(depthwise, depthwise_kernel, x, region, memory);
    else
      copy_region<C>(conv, x, (const char*)task->gate, region, memory);
    if (conv.bare) return give_rows<C>(conv, pixels, memory, out);
    if (conv.normalized) normalize_rows<C>(conv, places, pixels, memory);
    matmul_range<C>(matmul, blocks_of<C>.at, memory.data, pixels, part, out, channels, ahead, after);
  }

  int64_t take() { return __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED); }
  int64_t tiles() const { return regions.count() * slices; }
  bool none_left() const { return __atomic_load_n(&next, __ATOMIC_RELAXED) >= tiles(); }

  // One thread's share: the next tile that nobody has taken, until none is left.
  static void share(void* context, int64_t) {
    Run& run = *(Run*)context;
    FlushSubnormals flush;
    const int64_t row_bytes = run.matmul.row_bytes;
    Tile memory{(char*)run.task->host.scratch(0, run.tile_bytes(run.regions.pixels())), row_bytes};
    const Conv& conv = run.task->conv;
    const char* x = (const char*)run.task->x;
    // To look ahead is to take a tile before its time; where there are few, another thread waits for it.
    const bool looks_ahead = Ahead::pays(conv, run.depthwise.pixel_bytes) &&
                             run.regions.count() >= 16 * run.task->host.threads;
    Region regions[2];
    Ahead ahead;
    int64_t index = run.take(), here = 0;
    if (index < run.tiles()) run.regions.get(index / run.slices, regions[here]);
    while (index < run.tiles()) {
      if (looks_ahead) {
        index = run.take();
        ahead.clear();
        if (index < run.regions.count()) {
          run.regions.get(index, regions[!here]);
          ahead.aim(conv, x, run.depthwise.pixel_bytes, regions[!here]);
        }
        run.tile(regions[here], x, memory, ahead, index >= run.regions.count());
        here = !here;
      } else {
        run.tile(regions[here], x, memory, ahead, run.none_left(), index % run.slices);
        index = run.take();
        if (index < run.tiles()) run.regions.get(index / run.slices, regions[here]);
      }
    }
  }

  // The same where x is expanded first: parts of y, downwards, so that the band goes on.
  static void share_descending(void* context, int64_t) {
    Run& run = *(Run*)context;
    FlushSubnormals flush;
    const Conv& conv = run.task->conv;
    const Descent& descent = run.descent;
    const int64_t row_bytes = run.matmul.row_bytes, narrow = run.expansion.matmul.row_bytes;
    const int64_t bytes = run.tile_bytes(descent.pixels()), narrow_bytes = run.expansion.tile_bytes();
    char* scratch = (char*)run.task->host.scratch(0, bytes > narrow_bytes ? bytes : narrow_bytes);
    char* memory = (char*)run.task->host.scratch(1, descent.band_rows() * run.expansion.line_bytes);
    Band<C> band(run.expansion, memory);
    Ahead nothing;
    nothing.clear();
    Region region;
    for (int64_t part = run.take(); part < descent.parts(); part = run.take())
      for (int64_t row = descent.begin(part); row < descent.begin(part + 1);) {
        const int64_t image = row / conv.out_height, from = row % conv.out_height;
        const int64_t rows = descent.rows(part, row);
        int64_t first, end;
        descent.reach(from, rows, first, end);
        const char* x = band.cover((const char*)run.task->x, image, first, end, {scratch, narrow});
        for (int64_t column = 0; column < conv.out_width; column += descent.columns()) {
          region.count = 0;
          const int64_t left = conv.out_width - column;
          for (int64_t i = 0; i < rows; i++)
            region.add(image, from + i, column, left < descent.columns() ? left : descent.columns());
          run.tile(region, x, {scratch, row_bytes}, nothing, row + rows >= descent.begin(part + 1));
        }
        row += rows;
      }
  }
};

template <class C>
void run(const Task& task) {
  const Conv& conv = task.conv;
  if (conv.out_pixels() == 0) return;
  const ChannelOrder<C> order(conv);
  // One line more than a row holds: rows a power of two apart would share few lines of the nearest cache.
  const int64_t row_bytes = round_up(order.places() * C::Mid::bytes, alignment) + alignment;
  const int64_t threads = task.host.threads;
  const int64_t pixel_bytes = conv.expanded ? round_up(conv.channels * C::Output::bytes, alignment) + alignment
                                            : conv.channels * C::Input::bytes;
  const int64_t line_bytes = conv.width * pixel_bytes;
  const float* expand = (const float*)task.packed;
  const float* weights = expand + Packed<C>::expand_floats(conv);
  const float* panels = weights + Packed<C>::depthwise_floats(conv);
  const Conv step = Expansion<C>::step_of(conv);
  const ChannelOrder<C> step_order(step);
  const int64_t pixels = tile_pixels<C>(conv, Dense<C>::read_bytes(conv, pixel_bytes, row_bytes));
  const Regions regions(conv, pixels, C::rows, threads, Dense<C>::pairs_rows(conv));
  const Descent descent(conv, line_bytes, threads, Dense<C>::pairs_rows(conv) || Dense<C>::pairs_rows(step));
  const int64_t longest = conv.expanded ? descent.columns() : regions.pixels();
  const int64_t step_bytes = round_up(step_order.places() * C::Mid::bytes, alignment) + alignment;
  const int64_t step_pixel = step.channels * C::Input::bytes;
  const int64_t expand_pixels = tile_pixels<C>(step, Dense<C>::read_bytes(step, step_pixel, step_bytes));
  Run<C> run{.task = &task,
             .depthwise = {&conv, weights, panels + Packed<C>::panel_floats(conv), ending_of(conv.between), pixel_bytes,
                           line_bytes},
             .depthwise_kernel = depthwise_kernel<C>(conv),
             .matmul = {.words = Dense<C>::words(conv),
                        .row_bytes = row_bytes,
                        .ending = ending_of(conv.activation),
                        .adds = task.residual != nullptr,
                        .shift = (uintptr_t)task.residual - (uintptr_t)task.y,
                        .far = conv.out_pixels() * conv.out_channels * C::Output::bytes >= far_bytes},
             .panels = panels,
             .regions = regions,
             .places = order.places(),
             .next = 0,
             .expansion = {.conv = step,
                           .matmul = {Dense<C>::words(step), step_bytes, ending_of(conv.widening)},
                           .panels = expand,
                           .pixel_bytes = pixel_bytes,
                           .line_bytes = line_bytes,
                           .pixels = expand_pixels,
                           .dense = Dense<C>(step, step_pixel, expand_pixels)},
             .descent = descent,
             .dense = Dense<C>(conv, pixel_bytes, longest < conv.out_width ? longest : conv.out_width),
             .slices = 1};
  const int64_t parts = ceil_divide(conv.out_channels, 2 * C::V::L);
  const bool slices = !conv.expanded && !conv.bare && run.regions.count() < threads;
  if (slices) run.slices = parts < threads ? parts : threads;
  const int64_t tiles = conv.expanded ? run.descent.parts() : run.tiles();
  task.host.parallel(tiles < threads ? tiles : threads, conv.expanded ? Run<C>::share_descending : Run<C>::share, &run);
}

template <class C>
constexpr Kernel kernel_of(const char* name, Isa isa, Type type, Precision precision) {
  return Kernel{name, isa, type, precision, Packed<C>::bytes, pack<C>, run<C>};
}

// The matrix step of float32 words.
template <class V>
struct FloatProducts {
  SEPWISE_INLINE typename V::F add_product(typename V::F sum, typename V::F word, typename V::F weight) {
    return V::add_product(sum, word, weight);
  }
  static void pack_number(float* panel, int64_t lanes, int64_t lane, int64_t place, float number) {
    panel[place * lanes + lane] = number;
  }
};

}  // namespace
}  // namespace sepwise
