// The lines of x that the next tile needs, fetched a few at a time while the present one is multiplied: the matrix step
// works in the near caches and leaves the memory idle, the depthwise step then waits for none. It pays where x is large
// (Zen 5, float32: 18 % of the time at 8 and at 39 MB, nothing with depth multiplier 4); where x comes from the third
// cache anyway, and few products are made of each line, it cost up to 17 %.
#pragma once

#include "kernel.h"
#include "regions.h"

namespace sepwise {
namespace {

class Ahead {
 public:
  static bool pays(const Conv& conv, int64_t pixel_bytes) {
    return conv.batch * conv.height * conv.width * pixel_bytes >= 4 << 20;
  }

  void clear() { count_ = now_ = lines_ = 0; }

  // The rows of x under the region that no region above it has fetched. After `clear`.
  void aim(const Conv& conv, const char* x, int64_t pixel_bytes, const Region& region) {
    const int64_t reach_h = (conv.kernel_h - 1) * conv.dilation_h, reach_w = (conv.kernel_w - 1) * conv.dilation_w;
    for (int64_t i = 0; i < region.count; i++) {
      const RowPiece& piece = region.pieces[i];
      const int64_t top = piece.row * conv.stride_h - conv.pad_top;
      const int64_t left = piece.first * conv.stride_w - conv.pad_left;
      const int64_t right = left + (piece.length - 1) * conv.stride_w + reach_w + 1;
      const int64_t begin = left < 0 ? 0 : left, end = right < conv.width ? right : conv.width;
      const int64_t last = top + reach_h < conv.height ? top + reach_h : conv.height - 1;
      const int64_t first = piece.row == 0 ? top : top + reach_h + 1 - conv.stride_h;
      for (int64_t row = first < 0 ? 0 : first; row <= last && begin < end && count_ < most; row++) {
        const char* from = x + ((piece.image * conv.height + row) * conv.width + begin) * pixel_bytes;
        segments_[count_++] = {from, from + (end - begin) * pixel_bytes};
        lines_ += (end - begin) * pixel_bytes / 64 + 1;
      }
    }
  }
  int64_t lines() const { return lines_; }

  SEPWISE_INLINE void fetch(const char* p) { __builtin_prefetch(p, 0, 2); }
  void some(int64_t lines) {
    for (; now_ < count_ && lines > 0; now_++) {
      Segment& segment = segments_[now_];
      for (; segment.begin < segment.end && lines > 0; segment.begin += 64, lines--) fetch(segment.begin);
      if (segment.begin < segment.end) return;
    }
  }

 private:
  static constexpr int64_t most = 2 * Region::most_pixels;
  struct Segment {
    const char* begin;
    const char* end;
  };
  Segment segments_[most];
  int64_t count_ = 0, now_ = 0, lines_ = 0;
};

}  // namespace
}  // namespace sepwise
