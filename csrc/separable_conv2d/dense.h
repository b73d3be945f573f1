// A dense convolution, in one of three ways: two pixels at a time where it has three taps (winograd.h); else patches are
// read where they lie, or gathered in a tile first (patches.h).
#pragma once

#include "order.h"
#include "patches.h"
#include "winograd.h"

namespace sepwise {
namespace {

template <class C>
class Dense {
 public:
  // `pixel_bytes`: of the picture that it reads. For pieces of at most so many pixels.
  Dense(const Conv& conv, int64_t pixel_bytes, int64_t pixels)
      : conv_(&conv), winograd_(conv), patches_(conv, pixel_bytes, pixels) {}

  // Words of a panel.
  static int64_t words(const Conv& conv) {
    return Winograd<C>::can(conv) ? Winograd<C>::products * Winograd<C>::words(conv) : ChannelOrder<C>(conv).words();
  }
  // What the matrix step reads for a pixel, of the picture, or of a tile whose rows have so many bytes.
  static int64_t read_bytes(const Conv& conv, int64_t pixel_bytes, int64_t row_bytes) {
    if (Winograd<C>::can(conv)) return Winograd<C>::pixel_bytes(conv);
    return Patches<C>::can(conv) ? pixel_bytes : row_bytes;
  }
  // Whether rows of y are wanted two by two.
  static bool pairs_rows(const Conv& conv) { return Winograd<C>::can(conv) && Winograd<C>::pairs_rows(conv); }

  // Of the tile for so many pixels, whose rows have so many bytes where patches are gathered.
  int64_t bytes(int64_t pixels, int64_t row_bytes) const {
    return winograd_.serves ? winograd_.bytes(pixels) : patches_.by_lines ? patches_.bytes() : pixels * row_bytes;
  }

  // A region of y, `out` one pointer a pixel, so many channels from there on; the tile has `bytes`.
  void multiply(const Picture<C>& x, const Region& region, Tile tile, const MatmulCall& call,
                const float* panels, char* const* out, int64_t out_channels, Ahead& ahead, Coming after) const {
    if constexpr (Winograd<C>::exists)
      if (winograd_.serves)
        return winograd_.multiply(x, region, tile.data, call, panels, out, out_channels, ahead, after);
    if (patches_.by_lines)
      return patches_.multiply(x, region, tile.data, call, panels, out, out_channels, ahead, after);
    gather_region<C>(*conv_, x, region, tile);
    matmul_range<C>(call, blocks_of<C>.at, tile.data, region.pixels(), panels, out, out_channels, ahead, after);
  }

 private:
  const Conv* conv_;
  Winograd<C> winograd_;
  Patches<C> patches_;
};

}  // namespace
}  // namespace sepwise
