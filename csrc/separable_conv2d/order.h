// In which order the channels between the steps lie in a row of the tile; both packed weights follow it.
//
// Channels of x come in blocks of 2 L; within a block, all filters of the block's channels for j = 0, then for j = 1,
// ... (multiplier of them), so that a vector of x meets a vector of filters. The last block may be narrower. Patches
// of a dense convolution lie as they do in x: kernel rows, columns, channels.
#pragma once

#include "kernel.h"

namespace sepwise {
namespace {

template <class C>
struct ChannelOrder {
  static constexpr int64_t width = 2 * C::V::L;
  // Where places are float32 words in the order of channels, a last block of at most L channels takes only L places.
  static constexpr bool may_be_narrow = C::Input::keeps_order && C::Mid::bytes == 4;
  static constexpr bool is_narrow(int64_t rest) { return may_be_narrow && rest <= C::V::L; }
  // Packed depthwise weights of one block and filter, in float32: the bias, then the taps.
  static int64_t filter(const Conv& conv) { return (conv.kernel_h * conv.kernel_w + 1) * width; }
  int64_t multiplier, full, rest, tail;
  bool natural;

  explicit ChannelOrder(const Conv& conv)
      : multiplier(conv.multiplier),
        full((conv.gathered ? conv.mid_channels() : conv.channels) / width),
        rest((conv.gathered ? conv.mid_channels() : conv.channels) % width),
        natural(conv.gathered) {
    tail = rest == 0 ? 0 : is_narrow(rest) ? C::V::L : width;
  }
  int64_t blocks() const { return full + (rest != 0); }
  // Places for channels in one row of the tile, those that stay zero included.
  int64_t places() const { return (full * width + tail) * multiplier; }
  // 32-bit words of a row that the matrix step has to read.
  int64_t words() const {
    if (natural) return ((full * width + rest) * C::Mid::bytes + 3) / 4;
    return may_be_narrow && rest != 0 ? places() - tail + rest : places() * C::Mid::bytes / 4;
  }
  // The place of filter j of channel c; of a patch, of its number c.
  int64_t place(int64_t c, int64_t j) const {
    if (natural) return c;
    const int64_t block = c / width;
    const int64_t first = block < full ? (block * multiplier + j) * width : full * width * multiplier + j * tail;
    return first + C::Input::position(c % width);
  }
};

}  // namespace
}  // namespace sepwise
