// AMX on float32 numbers split into bfloat16 parts (split.h): three parts and six products are as exact as float32
// arithmetic, two parts and three products are within 1e-5. Every size and activation; owns all tails.
//
// What the parts cannot express is left to f32_avx512, whose packed weights lie behind those of the tiles:
//   - the whole convolution, where a weight is not finite or would not be finite in bfloat16;
//   - a pixel of which a sum is not finite: a number between the steps was NaN, infinite or above 3.3895e38, or the
//     sum truly overflows. So NaN and infinities are those that float32 arithmetic gives.
// Small numbers are not: depthwise results, weights and their products lose relative accuracy below 2^-102 (2e-31),
// where their parts fall below the smallest normal number. What is lost of each is at most 2^-126.
#include "amx_engine.h"
#include "split.h"

namespace sepwise {

extern const Kernel f32_avx512;

namespace {

template <int PARTS>
struct SplitKernel : SplitWeights<PARTS> {
  using V = SixteenPairs;
  using Input = SplitInput;
  using Mid = SplitTile<PARTS>;
  using Output = FloatOutput<V>;
  static constexpr int columns = 8, parts = PARTS;
};

// Packed weights: the header, those of the tiles, those of f32_avx512.
struct Header {
  int64_t exact_only;
  char rest[alignment - 8];
};

template <class C>
struct SplitPacked {
  static size_t exact_at(const Conv& conv) { return sizeof(Header) + round_up(Packed<C>::bytes(conv), alignment); }
  static size_t bytes(const Conv& conv) { return exact_at(conv) + f32_avx512.packed_bytes(conv); }
};

template <class C>
void pack_split(const Conv& conv, const Weights& weights, void* packed) {
  char* memory = (char*)packed;
  const int64_t mids = conv.mid_channels();
  auto fits = [](const void* numbers, int64_t count) { return !numbers || can_split((const float*)numbers, count); };
  const bool all_fit = fits(weights.depthwise, mids * conv.kernel_h * conv.kernel_w) &&
                       fits(weights.depthwise_bias, mids) && fits(weights.pointwise, conv.out_channels * mids) &&
                       fits(weights.bias, conv.out_channels);
  *(Header*)memory = {.exact_only = !all_fit, .rest = {}};
  pack<C>(conv, weights, memory + sizeof(Header));
  f32_avx512.pack(conv, weights, memory + SplitPacked<C>::exact_at(conv));
}

void one_after_another(int64_t jobs, void (*job)(void*, int64_t), void* context) {
  for (int64_t i = 0; i < jobs; i++) job(context, i);
}

// Pixels of one row of y in float32, on this thread: a convolution of one output row whose first tap lies further right
// and down. That is less padding, below zero inside the picture.
void compute_exactly(const Task& exact, const RowPiece& piece) {
  const Conv& whole = exact.conv;
  Task task = exact;
  task.host.parallel = one_after_another;
  task.host.threads = 1;
  task.conv.batch = task.conv.out_height = 1;
  task.conv.out_width = piece.length;
  task.conv.pad_top -= piece.row * whole.stride_h;
  task.conv.pad_left -= piece.first * whole.stride_w;
  task.x = (const float*)exact.x + piece.image * whole.height * whole.width * whole.channels;
  task.y = (float*)exact.y +
           ((piece.image * whole.out_height + piece.row) * whole.out_width + piece.first) * whole.out_channels;
  f32_avx512.run(task);
}

void compute_marked(const Task& exact, const Region& region, const uint8_t* marks) {
  for (int64_t i = 0; i < region.count; i++) {
    const RowPiece& piece = region.pieces[i];
    for (int64_t c = 0; c < piece.length; c++) {
      int64_t length = 0;
      while (c + length < piece.length && marks[c + length]) length++;
      if (length > 0) compute_exactly(exact, {piece.image, piece.row, piece.first + c, length});
      c += length;
    }
    marks += piece.length;
  }
}

template <class C>
void run_split(const Task& task) {
  Task exact = task;
  exact.packed = (const char*)task.packed + SplitPacked<C>::exact_at(task.conv);
  if (((const Header*)task.packed)->exact_only)
    f32_avx512.run(exact);
  else
    run_tiles<C>(task, (const char*)task.packed + sizeof(Header), compute_marked, &exact);
}

// Where parts lose to float32 sums. Measured in an early study on an Emerald Rapids (2 MiB of second cache), with one
// and with two threads, float32 sums against six products, in microseconds:
//     32 -> 64 channels, 112 x 112 pixels                 383 : 443     211 : 262
//     64 -> 128, 56 x 56 pixels, stride 2                 387 : 397     190 : 157
//     64 -> 128, 32 pictures of 32 x 32                  3584 : 3072   1685 : 1619
//     1024 -> 1024, 7 x 7 pixels, 6 MiB of weights        508 : 467     272 : 280
//     728 -> 728, 19 x 19 pixels, 3 MiB of weights       1892 : 1182   1131 : 601
// With few channels, splitting the mids and storing the sums costs more than the products save. Weights that do not fit
// the second cache must serve some 50 pixels for six products, by their bytes some 30 for three.
template <int PARTS>
bool pays(const Conv& conv) {
  const int64_t mids = conv.mid_channels(), outs = conv.out_channels;
  const bool far_weights = mids * outs * 2 * PARTS > 2 * 1024 * 1024;
  return mids >= 64 && outs >= 64 && !(far_weights && conv.out_pixels() < 16 * PARTS);
}

template <class C>
constexpr Kernel split_kernel_of(const char* name, Precision precision) {
  return Kernel{.name = name,
                .needs = Isa::amx,
                .type = Type::float32,
                .precision = precision,
                .packed_bytes = SplitPacked<C>::bytes,
                .pack = pack_split<C>,
                .run = run_split<C>,
                .pays = pays<C::parts>,
                .knows_blocks = false};
}

}  // namespace

extern const Kernel f32_amx_x6 = split_kernel_of<SplitKernel<3>>("f32_amx_x6", Precision::highest);
extern const Kernel f32_amx_x3 = split_kernel_of<SplitKernel<2>>("f32_amx_x3", Precision::high);

}  // namespace sepwise
