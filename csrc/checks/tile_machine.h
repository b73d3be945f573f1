// The meaning of the tile instructions that the AMX kernels use, in plain C++, for machines that lack them: palette 1,
// eight tiles of up to 16 rows of up to 64 bytes. Whatever would be a fault there ends the program with a sentence.
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../separable_conv2d/denormals.h"

class TileMachine {
 public:
  // LDTILECFG: 64 bytes.
  void configure(const uint8_t* layout) {
    require(layout[0] == 1 && layout[1] == 0, "a layout is of palette 1 and starts with row 0");
    for (int i = 2; i < 16; i++) require(layout[i] == 0, "bytes 2 to 15 of a layout are 0");
    for (int t = 0; t < 16; t++) {
      uint16_t bytes;
      memcpy(&bytes, layout + 16 + 2 * t, 2);
      const uint8_t rows = layout[48 + t];
      require(t < 8 ? bytes <= 64 && bytes % 4 == 0 && rows <= 16 : bytes == 0 && rows == 0,
              "a layout has eight tiles of at most 16 rows of 64 bytes, and zeros after them");
      require((bytes == 0) == (rows == 0), "a tile has rows and columns, or neither");
      if (t < 8) tiles_[t] = {rows, bytes, {}};
    }
    configured_ = true;
  }
  // TILERELEASE
  void release() {
    require(configured_, "tiles are released once, after they were in use");
    *this = TileMachine();
  }
  bool configured() const { return configured_; }

  // TILELOADD and TILELOADDT1
  void load(int t, const char* memory, int64_t stride) {
    Tile& tile = valid(t);
    memset(tile.data, 0, sizeof tile.data);
    for (int row = 0; row < tile.rows; row++) memcpy(tile.data[row], memory + row * stride, tile.bytes);
  }
  // TILESTORED
  void store(int t, char* memory, int64_t stride) {
    const Tile& tile = valid(t);
    for (int row = 0; row < tile.rows; row++) memcpy(memory + row * stride, tile.data[row], tile.bytes);
  }
  // TDPBF16PS sum, a, b: products of FMA, to the nearest, ties to even; subnormal inputs and results are zero.
  __attribute__((target("avx512f,fma"))) void product(int s, int a, int b) {
    Tile &sum = valid(s), &left = valid(a), &right = valid(b);
    require(s != a && s != b && a != b, "a product takes three different tiles");
    require(left.rows == sum.rows && right.rows == left.bytes / 4 && right.bytes == sum.bytes,
            "the shapes of a product fit");
    const sepwise::FlushSubnormals flush;
    for (int m = 0; m < sum.rows; m++) {
      float even[16] = {}, odd[16] = {};
      for (int k = 0; k < right.rows; k++) {
        const float first = number(left.data[m][k] << 16), second = number(left.data[m][k] & 0xffff0000u);
        for (int n = 0; n < 16; n++) {
          even[n] = __builtin_fmaf(first, number(right.data[k][n] << 16), even[n]);
          odd[n] = __builtin_fmaf(second, number(right.data[k][n] & 0xffff0000u), odd[n]);
        }
      }
      float row[16];
      memcpy(row, sum.data[m], 64);
      for (int n = 0; n < sum.bytes / 4; n++) row[n] += even[n] + odd[n];
      memcpy(sum.data[m], row, 64);
    }
  }

 private:
  struct Tile {
    uint8_t rows;
    uint16_t bytes;
    uint32_t data[16][16];
  };

  static float number(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
  }
  Tile& valid(int t) {
    require(configured_, "tiles are used while they are configured");
    require(t >= 0 && t < 8 && tiles_[t].rows > 0, "only configured tiles are used");
    return tiles_[t];
  }
  static void require(bool held, const char* rule) {
    if (held) return;
    fprintf(stderr, "tile instruction: broken rule: %s\n", rule);
    abort();
  }

  bool configured_ = false;
  Tile tiles_[8] = {};
};
