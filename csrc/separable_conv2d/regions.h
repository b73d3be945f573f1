// Which output pixels a tile holds: a list of row pieces, so that the depthwise step finds the rows of x it shares
// between rows of y still in the nearest cache.
//
// Narrow pictures are cut into runs of pixels, flattened over rows and pictures, all of the same length: equal work for
// all threads. Wide ones are cut into strips, and these into rectangles.
#pragma once

#include "kernel.h"
#include "vector.h"

namespace sepwise {
namespace {

SEPWISE_INLINE int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A piece of one row of y.
struct RowPiece {
  int64_t image, row, first, length;
};

struct Region {
  static constexpr int64_t most_pixels = 256;
  RowPiece pieces[most_pixels];
  int64_t count;

  void add(int64_t image, int64_t row, int64_t first, int64_t length) {
    pieces[count++] = {image, row, first, length};
  }

  int64_t pixels() const {
    int64_t all = 0;
    for (int64_t i = 0; i < count; i++) all += pieces[i].length;
    return all;
  }

  // Where its pixels lie in y, one after another; returns how many they are.
  int64_t find_pixels(const Conv& conv, void* y, int64_t pixel_bytes, char** out) const {
    int64_t pixels = 0;
    for (int64_t i = 0; i < count; i++) {
      const RowPiece& piece = pieces[i];
      char* pixel = (char*)y + ((piece.image * conv.out_height + piece.row) * conv.out_width + piece.first) * pixel_bytes;
      for (int64_t c = 0; c < piece.length; c++, pixel += pixel_bytes) out[pixels++] = pixel;
    }
    return pixels;
  }
};

class Regions {
 public:
  // About `pixels` in a region, at most Region::most_pixels; a multiple of `unit` where there are many. `by_pairs`: rows
  // of y are wanted two by two, as columns may always be.
  Regions(const Conv& conv, int64_t pixels, int64_t unit, int64_t threads, bool by_pairs = false)
      : width_(conv.out_width), height_(conv.out_height), total_rows_(conv.batch * conv.out_height) {
    const bool reaches =
        !conv.pooled && (conv.kernel_h > 1 || conv.kernel_w > 1 || conv.stride_h > 1 || conv.stride_w > 1);
    strips_ = width_ <= widest || !reaches ? 1 : ceil_divide(width_, widest);
    strip_ = strips_ == 1 ? width_ : ceil_divide(width_, 2 * strips_) * 2;
    flat_ = strips_ == 1 && !by_pairs;
    if (flat_) {
      const int64_t total = conv.out_pixels(), rounds = ceil_divide(total, pixels * threads);
      // Few rounds: the same share for every thread, though it be no whole number of blocks.
      pixels_ = rounds > 8 ? pixels / unit * unit : ceil_divide(total, rounds * threads);
      count_ = ceil_divide(total, pixels_);
    } else {
      rows_ = pixels / strip_ < 1 ? 1 : pixels / strip_;
      rows_ = rows_ > 1 ? rows_ / 2 * 2 : 1;
      if (rows_ > height_) rows_ = height_;
      const int64_t rounds = ceil_divide(ceil_divide(total_rows_, rows_) * strips_, threads);
      if (rounds <= 8) rows_ = ceil_divide(total_rows_, ceil_divide(rounds * threads, strips_));
      if (by_pairs) rows_ = (rows_ + 1) / 2 * 2;
      if (rows_ * strip_ > Region::most_pixels) {
        rows_ = Region::most_pixels / strip_;
        if (by_pairs) rows_ = rows_ / 2 * 2;
      }
      count_ = ceil_divide(total_rows_, rows_) * strips_;
    }
  }

  int64_t count() const { return count_; }
  // The most pixels of any region.
  int64_t pixels() const { return flat_ ? pixels_ : rows_ * strip_; }

  void get(int64_t index, Region& region) const {
    region.count = 0;
    if (flat_) {
      int64_t pixel = index * pixels_, row = pixel / width_, first = pixel % width_;
      int64_t left = total_rows_ * width_ - pixel < pixels_ ? total_rows_ * width_ - pixel : pixels_;
      for (; left > 0; row++, first = 0) {
        const int64_t length = left < width_ - first ? left : width_ - first;
        region.add(row / height_, row % height_, first, length);
        left -= length;
      }
    } else {
      const int64_t first = index % strips_ * strip_;
      const int64_t length = width_ - first < strip_ ? width_ - first : strip_;
      const int64_t begin = index / strips_ * rows_;
      const int64_t end = begin + rows_ < total_rows_ ? begin + rows_ : total_rows_;
      if (length > 0)
        for (int64_t row = begin; row < end; row++) region.add(row / height_, row % height_, first, length);
    }
  }

 private:
  static constexpr int64_t widest = 32;
  int64_t width_, height_, total_rows_, strips_, strip_, pixels_ = 0, rows_ = 0, count_;
  bool flat_;
};

// The rows of y, of all pictures below each other, cut into parts for threads, and these into steps of a few rows: the
// rows of x under a step are to stay in the second cache, expanded.
class Descent {
 public:
  // `by_pairs`: rows of y are wanted two by two.
  Descent(const Conv& conv, int64_t line_bytes, int64_t threads, bool by_pairs)
      : conv_(&conv), by_pairs_(by_pairs), all_(conv.batch * conv.out_height) {
    parts_ = conv.batch >= 4 * threads ? conv.batch : threads < all_ ? threads : all_;
    const int64_t widest = by_pairs ? Region::most_pixels / 2 : Region::most_pixels;
    columns_ = conv.out_width < widest ? conv.out_width : widest;
    step_ = Region::most_pixels / columns_;
    while (step_ > 1 && (needs(step_) * line_bytes > near || step_ > conv.out_height)) step_--;
    if (by_pairs && conv.out_height > 1) step_ = step_ < 2 ? 2 : step_ / 2 * 2;
  }

  int64_t parts() const { return parts_; }
  // The first row of a part.
  int64_t begin(int64_t part) const {
    const int64_t row = all_ * part / parts_;
    return by_pairs_ ? row - row % conv_->out_height % 2 : row;
  }
  // How many rows the step has that begins at `row`: all of one picture and of this part.
  int64_t rows(int64_t part, int64_t row) const {
    const int64_t picture = (row / conv_->out_height + 1) * conv_->out_height, end = begin(part + 1);
    const int64_t left = (end < picture ? end : picture) - row;
    return left < step_ ? left : step_;
  }
  int64_t columns() const { return columns_; }
  int64_t pixels() const { return step_ * columns_; }
  // Rows of x that a step reads, the picture's own; two by two, too.
  int64_t band_rows() const {
    const int64_t rows = needs(step_) + by_pairs_;
    return rows < conv_->height ? rows : conv_->height;
  }
  void reach(int64_t row, int64_t rows, int64_t& first, int64_t& end) const {
    first = row * conv_->stride_h - conv_->pad_top;
    end = first + needs(rows);
    if (by_pairs_) end += end % 2;
    if (first < 0) first = 0;
    if (end > conv_->height) end = conv_->height;
    if (end <= first) first = end = 0;  // padding alone
  }

 private:
  static constexpr int64_t near = 448 * 1024;
  int64_t needs(int64_t rows) const {
    return (rows - 1) * conv_->stride_h + (conv_->kernel_h - 1) * conv_->dilation_h + 1;
  }
  const Conv* conv_;
  bool by_pairs_;
  int64_t all_, parts_, columns_, step_;
};

}  // namespace
}  // namespace sepwise
