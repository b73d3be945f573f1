// A convolution of random float32 numbers, what it should give in float64, and what a kernel gives.
#pragma once

#include <math.h>

#include <algorithm>
#include <memory>
#include <random>
#include <vector>

#include "../separable_conv2d/kernel.h"
#include "host.h"
#include "naive.h"

namespace sepwise {

using Floats = std::vector<float>;

inline std::mt19937_64 draw(1);

inline double uniform() { return (double)(draw() >> 11) * 0x1p-53; }
inline int64_t between(int64_t low, int64_t high) { return low + (int64_t)(draw() % (uint64_t)(high - low + 1)); }
inline Floats normal(int64_t count, double scale = 1) {
  std::normal_distribution<double> bell(0, scale);
  Floats numbers(count);
  for (float& number : numbers) number = (float)bell(draw);
  return numbers;
}
inline float from_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

struct Problem {
  Conv conv;
  Floats x, depthwise, depthwise_bias, pointwise, bias;
};

inline Problem problem(int64_t channels, int64_t out_channels, int64_t height, int64_t width, int64_t kernel = 3,
                       int64_t multiplier = 1, int64_t stride = 1) {
  const int64_t pad = kernel / 2;
  Conv conv{.batch = 1, .channels = channels, .height = height, .width = width, .multiplier = multiplier,
            .out_channels = out_channels, .out_height = (height + 2 * pad - kernel) / stride + 1,
            .out_width = (width + 2 * pad - kernel) / stride + 1, .kernel_h = kernel, .kernel_w = kernel,
            .stride_h = stride, .stride_w = stride, .dilation_h = 1, .dilation_w = 1, .pad_top = pad, .pad_left = pad,
            .between = Activation::none, .activation = Activation::none};
  const int64_t mids = conv.mid_channels();
  return {conv, normal(height * width * channels), normal(mids * kernel * kernel, 1 / (double)kernel), normal(mids),
          normal(out_channels * mids, 1 / sqrt((double)mids)), normal(out_channels)};
}

struct Answer {
  std::vector<double> y, size;  // size: the sum of the magnitudes that y adds up
  double weights = 0, mids = 0;  // the largest sum of magnitudes of weights and of mids that one y meets
};

inline Answer truth(const Problem& p) {
  const Conv& conv = p.conv;
  const int64_t mids = conv.mid_channels();
  Answer answer;
  std::vector<double> mid(mids);
  for (int64_t pixel = 0; pixel < conv.out_pixels(); pixel++) {
    const int64_t row = pixel / conv.out_width, column = pixel % conv.out_width;
    double all = 0;
    for (int64_t q = 0; q < mids; q++) {
      double sum = p.depthwise_bias[q];
      for (int64_t u = 0; u < conv.kernel_h; u++)
        for (int64_t v = 0; v < conv.kernel_w; v++) {
          const int64_t i = row * conv.stride_h + u - conv.pad_top, j = column * conv.stride_w + v - conv.pad_left;
          if (i >= 0 && i < conv.height && j >= 0 && j < conv.width)
            sum += (double)p.x[(i * conv.width + j) * conv.channels + q / conv.multiplier] *
                   p.depthwise[(q * conv.kernel_h + u) * conv.kernel_w + v];
        }
      mid[q] = activated(conv.between, sum);
      all += fabs(mid[q]);
    }
    answer.mids = std::max(answer.mids, all);
    for (int64_t o = 0; o < conv.out_channels; o++) {
      double sum = p.bias[o], size = fabs(sum), weights = 0;
      for (int64_t q = 0; q < mids; q++) {
        const double weight = p.pointwise[o * mids + q];
        sum += mid[q] * weight, size += fabs(mid[q] * weight), weights += fabs(weight);
      }
      answer.weights = std::max(answer.weights, weights);
      answer.y.push_back(activated(conv.activation, sum));
      answer.size.push_back(size);
    }
  }
  return answer;
}

// As a kernel takes them; for bfloat16 they are numbers of bfloat16 already.
inline std::vector<char> as(Type type, const Floats& numbers) {
  std::vector<char> memory(numbers.size() * (type == Type::float32 ? 4 : 2));
  for (size_t i = 0; i < numbers.size(); i++) {
    if (type == Type::float32)
      memcpy(&memory[4 * i], &numbers[i], 4);
    else
      memcpy(&memory[2 * i], (const char*)&numbers[i] + 2, 2);
  }
  return memory;
}

inline Floats compute(const Kernel& kernel, const Problem& p) {
  const auto x = as(kernel.type, p.x), depthwise = as(kernel.type, p.depthwise);
  const auto pointwise = as(kernel.type, p.pointwise), bias = as(kernel.type, p.bias);
  const auto depthwise_bias = as(kernel.type, p.depthwise_bias);
  const size_t bytes = kernel.packed_bytes(p.conv);
  const std::unique_ptr<char, void (*)(void*)> packed((char*)aligned_alloc(64, (bytes + 63) / 64 * 64),
                                                      [](void* memory) { free(memory); });
  kernel.pack(p.conv, {depthwise.data(), depthwise_bias.data(), pointwise.data(), bias.data()}, packed.get());
  std::vector<char> y(p.conv.out_pixels() * p.conv.out_channels * (kernel.type == Type::float32 ? 4 : 2));
  kernel.run({p.conv, packed.get(), x.data(), y.data(), {host_parallel, host_threads, host_scratch}});
  Floats numbers(p.conv.out_pixels() * p.conv.out_channels);
  for (size_t i = 0; i < numbers.size(); i++) {
    uint32_t bits = 0;
    kernel.type == Type::float32 ? memcpy(&bits, &y[4 * i], 4) : memcpy((char*)&bits + 2, &y[2 * i], 2);
    numbers[i] = from_bits(bits);
  }
  return numbers;
}

}  // namespace sepwise
