// In which order the channels between the steps lie in a row of the tile; both packed weights follow it.
//
// Channels of x come in blocks of 2 L; within a block, all filters of the block's channels for j = 0, then for j = 1,
// ... (multiplier of them), so that a vector of x meets a vector of filters. The last block may be narrower.
#pragma once

#include "kernel.h"

namespace sepwise {
namespace {

template <class C>
struct ChannelOrder {
  static constexpr int64_t width = 2 * C::V::L;
  int64_t multiplier, full, rest, tail;

  explicit ChannelOrder(const Conv& conv)
      : multiplier(conv.multiplier), full(conv.channels / width), rest(conv.channels % width) {
    const bool narrow = C::Input::keeps_order && C::Mid::bytes == 4 && rest <= C::V::L;
    tail = rest == 0 ? 0 : narrow ? C::V::L : width;
  }
  int64_t blocks() const { return full + (rest != 0); }
  // Places for channels in one row of the tile, those that stay zero included.
  int64_t places() const { return (full * width + tail) * multiplier; }
  // 32-bit words of a row that the matrix step has to read.
  int64_t words() const {
    const bool trimmed = C::Input::keeps_order && C::Mid::bytes == 4 && rest != 0;
    return trimmed ? places() - tail + rest : places() * C::Mid::bytes / 4;
  }
  // The place of filter j of channel c.
  int64_t place(int64_t c, int64_t j) const {
    const int64_t block = c / width;
    const int64_t first = block < full ? (block * multiplier + j) * width : full * width * multiplier + j * tail;
    return first + C::Input::position(c % width);
  }
};

}  // namespace
}  // namespace sepwise
