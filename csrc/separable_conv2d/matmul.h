// The pointwise step: rows of the tile x a panel of 2 L output channels -> y, all sums in registers.
//
// The tile is read as 32-bit words, one float32 or a pair of bfloat16 numbers, each broadcast to all lanes and
// multiplied with the panel's vectors of the same word: `C::add_product`.
// float32 sums of more than 192 words are made in parts of at most 128 (or one segment of at most 192), each from zero:
// one long chain would be less exact than stock PyTorch, which cuts its sums as well (measured: docs/numerics.md), and
// parts cost 1 to 3 % of time. Where a row makes two pixels, each product is such a sum (winograd.h).
// Packed weights of a panel: bias (2 L float32), then `words` rows of 2 L words; of L where at most L channels are left.
#pragma once

#include "ahead.h"
#include "ending.h"
#include "formats.h"
#include "kernel.h"

namespace sepwise {
namespace {

struct MatmulCall {
  int64_t words;      // of one row of the tile, or of one segment of it
  int64_t row_bytes;  // from one row of the tile to the next
  Ending ending;
  // Where there is a residual: it lies so many bytes behind y.
  bool adds = false;
  uintptr_t shift = 0;
  // A row may lie in several segments; from the end of segment i to the next one gaps[i] bytes.
  int64_t segments = 1;
  const int64_t* gaps = nullptr;
  int64_t all_words() const { return words * segments; }
  int64_t outputs = 1;  // pixels of y for each row
  bool far = false;     // y is too large to lie in a near cache
};

// Weights that come nearer while a block is computed: so many lines every fourth word. In a network each weight is used
// once in a call and comes from far; that saved 3 to 7 % of MobileNets (Zen 5, either dtype, 1 and 2 threads).
struct Soon {
  const char* weights;
  int lines;
};

// What is to come nearer: so many lines of 64 bytes.
struct Coming {
  const char* from = nullptr;
  int64_t lines = 0;
};

// Sums of a block, and where it reads.
template <class C, int ROWS, int VECTORS>
struct Sums {
  using V = typename C::V;
  using F = typename V::F;
  static constexpr int L = V::L, pointers = (ROWS + 2) / 3;
  F sum[ROWS][VECTORS];
  const char* base[pointers];  // three rows share one: base, base + stride and base + 2 * stride are addressing modes
  int64_t stride;
  const float* panel;

  // From the biases, with which the panel begins.
  [[gnu::always_inline]] Sums(const char* tile, int64_t stride, const float* packed)
      : stride(stride), panel(packed + VECTORS * L) {
    each([&](int r, int v) __attribute__((always_inline)) { sum[r][v] = V::load(packed + v * L); });
#pragma GCC unroll 16
    for (int g = 0; g < pointers; g++) base[g] = tile + 3 * g * stride;
  }

  template <class Action>
  [[gnu::always_inline]] static void each(Action action) {
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 2
      for (int v = 0; v < VECTORS; v++) action(r, v);
  }

  [[gnu::always_inline]] void step(int u) {
    F weight[VECTORS];
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; v++) weight[v] = V::load(panel + (u * VECTORS + v) * L);
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++) {
      F word = V::broadcast(base[r / 3] + (r % 3) * stride + 4 * u);
      V::keep(word);  // one load for both products
#pragma GCC unroll 2
      for (int v = 0; v < VECTORS; v++) sum[r][v] = C::add_product(sum[r][v], word, weight[v]);
    }
  }
  [[gnu::always_inline]] void skip(int64_t bytes) {
#pragma GCC unroll 16
    for (int g = 0; g < pointers; g++) base[g] += bytes;
  }
  // The products of so many words.
  [[gnu::always_inline]] void add(int64_t words, Soon& soon) {
    for (; words >= 4; words -= 4) {
      for (int i = 0; i < soon.lines; i++, soon.weights += 64) __builtin_prefetch(soon.weights, 0, 0);
      step(0);
      step(1);
      step(2);
      step(3);
      panel += 4 * VECTORS * L;
      skip(16);
    }
    for (; words > 0; words--) {
      step(0);
      panel += VECTORS * L;
      skip(4);
    }
  }

  // Before the sums, where y lies far: its lines come meanwhile.
  template <bool MAY_LACK>
  [[gnu::always_inline]] static void claim(const MatmulCall& call, char* const* out, int64_t offset) {
    if (!call.far) return;
    for (int r = 0; r < ROWS * (MAY_LACK ? 2 : 1); r++)
      if (!MAY_LACK || out[r])
        for (int64_t b = 0; b < VECTORS * L * C::Output::bytes; b += 64) {
          __builtin_prefetch(out[r] + offset + b, 1, 3);
          if (call.adds) __builtin_prefetch((const char*)((uintptr_t)out[r] + call.shift) + offset + b, 0, 3);
        }
  }

  // Into y: one pointer a row, every `apart`th; MAY_LACK: null where nobody asks for the row.
  template <bool MAY_LACK>
  [[gnu::always_inline]] void finish(const MatmulCall& call, char* const* out, int64_t apart, int64_t offset,
                                     int64_t channels) {
    const bool whole = channels == 2 * L;
    if (call.adds)
      each([&](int r, int v) __attribute__((always_inline)) {
        if (MAY_LACK && !out[r * apart]) return;
        const int64_t left = channels - v * L;
        const char* from = (const char*)((uintptr_t)out[r * apart] + call.shift) + offset + v * L * C::Output::bytes;
        sum[r][v] += left >= L ? C::Output::load(from) : C::Output::load_first(from, left < 0 ? 0 : left);
      });
    activate_sums<V, typename C::Output>(call.ending, sum);
    const Bounds<V> bounds(call.ending);
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++) {
      if (MAY_LACK && !out[r * apart]) continue;
      F y[2] = {};
#pragma GCC unroll 2
      for (int v = 0; v < VECTORS; v++) y[v] = bounds.clamp(sum[r][v]);
      if (VECTORS == 2 && whole)
        C::Output::store(out[r * apart] + offset, y[0], y[1]);
      else
        C::Output::store_first(out[r * apart] + offset, y[0], y[1], channels);
    }
  }
};

template <class C, int ROWS, int VECTORS>
static __attribute__((noinline)) void matmul_block(const MatmulCall& call, const char* tile, const float* panel,
                                                   char* const* out, int64_t offset, int64_t channels, Soon soon) {
  using V = typename C::V;
  using F = typename V::F;
  constexpr int L = V::L;
  Sums<C, ROWS, VECTORS> sums(tile, call.row_bytes, panel);
  sums.template claim<false>(call, out, offset);
  const bool parted = C::Input::bytes == 4 && C::Mid::bytes == 4 && call.all_words() > 192;
  const int64_t parts = (call.words + 127) / 128;
  const int64_t part = parted && call.words > 192 ? ((call.words + parts - 1) / parts + 3) / 4 * 4 : call.words;
  float memory[ROWS * VECTORS * L] __attribute__((aligned(64)));
  float* total = memory;
  asm("" : "+r"(total));  // the registers are for the sums
  bool first = true;
  int64_t segment = 0, since = 0;  // words since the last part ended
  for (int64_t left = call.words;;) {
    int64_t w = left < part ? left : part;
    left -= w, since += w;
    sums.add(w, soon);
    if (left == 0) {
      if (segment + 1 == call.segments) break;
      left = call.words;
      sums.skip(call.gaps[segment++]);
    }
    if (!parted || since + (left < part ? left : part) <= 128) continue;
    since = 0;
    sums.each([&](int r, int v) __attribute__((always_inline)) {
      float* place = total + (r * VECTORS + v) * L;
      V::store(place, first ? sums.sum[r][v] : sums.sum[r][v] + V::load(place));
      sums.sum[r][v] = F{};
    });
    first = false;
  }
  if (parted)
    sums.each([&](int r, int v) __attribute__((always_inline)) {
      sums.sum[r][v] += V::load(total + (r * VECTORS + v) * L);
    });
  sums.template finish<false>(call, out, 1, offset, channels);
}

using MatmulBlock = void (*)(const MatmulCall&, const char* tile, const float* panel,
                             char* const* out, int64_t offset, int64_t channels, Soon soon);

struct OnePixel {
  template <class C, int ROWS, int VECTORS>
  static constexpr MatmulBlock block = matmul_block<C, ROWS, VECTORS>;
};

// The functions of blocks of one kind, of all sizes: [rows][vectors].
template <class C, class Kind>
struct BlockTable {
  MatmulBlock at[C::rows + 1][3] = {};

  constexpr BlockTable() { set<C::rows>(); }

 private:
  template <int ROWS>
  constexpr void set() {
    if constexpr (ROWS > 0) {
      set<ROWS - 1>();
      at[ROWS][1] = Kind::template block<C, ROWS, 1>;
      at[ROWS][2] = Kind::template block<C, ROWS, 2>;
    }
  }
};
template <class C, class Kind = OnePixel>
constexpr BlockTable<C, Kind> blocks_of;

// Rows of the tile x all panels -> y, one pointer a row. A panel stays in the nearest cache while all rows pass it, and
// the next one comes meanwhile; with the last one comes what `after` names. `share`: of how many such calls this is one.
template <class C>
void matmul_range(const MatmulCall& call, const MatmulBlock (*table)[3], const char* tile, int64_t rows,
                  const float* packed, char* const* out, int64_t out_channels, Ahead& ahead, Coming after = {},
                  int64_t share = 1) {
  constexpr int width = 2 * C::V::L;
  const int64_t blocks = (rows + C::rows - 1) / C::rows;
  const int64_t fours = call.words / 4 * call.segments * blocks;
  const int64_t lines = ahead.lines() / (share * blocks * ((out_channels + width - 1) / width)) + 1;
  for (int64_t first = 0; first < out_channels; first += width) {
    const int64_t channels = out_channels - first < width ? out_channels - first : width;
    const int vectors = channels <= C::V::L ? 1 : 2;
    // The next panel is no longer than this one.
    const int64_t panel_words = (call.all_words() + 1) * vectors * C::V::L;
    const float* next = packed + panel_words;
    const bool is_last = first + width >= out_channels;
    const Coming coming = is_last ? after : Coming{(const char*)next, panel_words / 16};
    Soon soon{coming.from, fours == 0 ? 0 : (int)((coming.lines + fours - 1) / fours)};
    if (is_last && soon.lines > 2) soon.lines = 2;
    for (int64_t b = 0; b < blocks; b++) {
      ahead.some(lines);
      const int64_t begin = rows * b / blocks, end = rows * (b + 1) / blocks;
      table[end - begin][vectors](call, tile + begin * call.row_bytes, packed, out + begin * call.outputs,
                                  first * C::Output::bytes, channels, soon);
      soon.weights += call.words / 4 * call.segments * soon.lines * 64;
    }
    packed = next;
  }
}

}  // namespace
}  // namespace sepwise
