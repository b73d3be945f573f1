// The contract of kernel.h as a plain loop in float64, sharing no code with the kernels.
//
// Numbers are small integers, so that every sum is exact in float32 and in float64, in any order: a kernel must give
// the same bits. Only activations beyond clamps leave the integers; `exact` says so, and `slack` is then the tolerance.
#pragma once

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vector>

#include "../separable_conv2d/kernel.h"

struct Numbers {
  std::vector<double> x, depthwise, depthwise_bias, pointwise, bias;  // empty: no bias
  std::vector<double> expand, expand_bias, residual, gate;            // empty: none
};

inline double activated(sepwise::Activation kind, double x) {
  switch (kind) {
    case sepwise::Activation::none: return x;
    case sepwise::Activation::relu: return x > 0 ? x : 0;
    case sepwise::Activation::relu6: return x < 0 ? 0 : x > 6 ? 6 : x;
    case sepwise::Activation::silu: return x / (1 + exp(-x));
    case sepwise::Activation::hardswish: return x * fmin(fmax(x + 3, 0), 6) / 6;
    case sepwise::Activation::gelu: return x * 0.5 * erfc(-x / sqrt(2));
    case sepwise::Activation::elu: return x > 0 ? x : expm1(x);
    case sepwise::Activation::sigmoid: return 1 / (1 + exp(-x));
    case sepwise::Activation::hardsigmoid: return fmin(fmax(x + 3, 0), 6) / 6;
  }
  abort();
}

inline float rounded_to_bf16(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u;
  memcpy(&value, &bits, 4);
  return value;
}

struct Expected {
  std::vector<float> y;
  std::vector<double> slack;
  bool exact;
};

inline bool is_clamp(sepwise::Activation kind) { return kind <= sepwise::Activation::relu6; }

// What the step with a kernel reads: x, or x expanded.
inline std::vector<double> widened(const sepwise::Conv& conv, const Numbers& numbers, bool half) {
  if (!conv.expanded) return numbers.x;
  std::vector<double> wide;
  const int64_t kernel_h = conv.expand_h ? conv.expand_h : 1, kernel_w = conv.expand_w ? conv.expand_w : 1;
  for (int64_t pixel = 0; pixel < conv.batch * conv.height * conv.width; pixel++) {
    const int64_t column = pixel % conv.width, row = pixel / conv.width % conv.height;
    const int64_t height = conv.expand_h ? conv.x_height : conv.height, width = conv.expand_h ? conv.x_width : conv.width;
    const int64_t first = pixel / conv.width / conv.height * height * width;
    for (int64_t c = 0; c < conv.channels; c++) {
      double sum = numbers.expand_bias.empty() ? 0 : numbers.expand_bias[c];
      for (int64_t u = 0; u < kernel_h; u++)
        for (int64_t v = 0; v < kernel_w; v++) {
          const int64_t i = row * conv.expand_stride_h + u - conv.expand_top;
          const int64_t j = column * conv.expand_stride_w + v - conv.expand_left;
          if (i < 0 || i >= height || j < 0 || j >= width) continue;
          for (int64_t k = 0; k < conv.expanded; k++)
            sum += numbers.x[(first + i * width + j) * conv.expanded + k] *
                   numbers.expand[((c * conv.expanded + k) * kernel_h + u) * kernel_w + v];
        }
      const float value = (float)activated(conv.widening, sum);
      wide.push_back(half ? rounded_to_bf16(value) : value);
    }
  }
  return wide;
}

// Returns how many times the spread of the numbers the largest of them is: rounding grows by as much.
inline double normalize(std::vector<double>& mid, double epsilon, bool half) {
  double mean = 0, variance = 0;
  for (double number : mid) mean += number / (double)mid.size();
  for (double number : mid) variance += (number - mean) * (number - mean) / (double)mid.size();
  double largest = 0;
  for (double& number : mid) {
    largest = fmax(largest, fabs(number));
    const float value = (float)((number - mean) / sqrt(variance + epsilon));
    number = half ? rounded_to_bf16(value) : value;
  }
  return largest / sqrt(variance + epsilon);
}

inline Expected naive(const sepwise::Conv& conv, const Numbers& numbers, sepwise::Type type,
                      sepwise::Precision precision) {
  const bool half_out = type == sepwise::Type::bfloat16;
  const bool half_mid = half_out || precision == sepwise::Precision::medium;
  const double unit = half_mid ? 0x1p-7 : precision == sepwise::Precision::high ? 0x1p-15 : 0x1p-18;
  const int64_t mids = conv.mid_channels(), taps = conv.kernel_h * conv.kernel_w;
  const bool exact = is_clamp(conv.between) && is_clamp(conv.activation) && is_clamp(conv.widening) && !conv.normalized;
  Expected expected{{}, {}, exact};
  const std::vector<double> wide = widened(conv, numbers, half_out);
  std::vector<double> mid(mids), sizes(mids);  // of all that was added
  for (int64_t pixel = 0; pixel < conv.out_pixels(); pixel++) {
    const int64_t column = pixel % conv.out_width, row = pixel / conv.out_width % conv.out_height;
    const int64_t image = pixel / conv.out_width / conv.out_height;
    for (int64_t q = 0; q < mids; q++) {
      if (conv.gathered) {
        const int64_t c = q / taps, u = q % taps / conv.kernel_w, v = q % conv.kernel_w;  // as the weights lie
        const int64_t i = row * conv.stride_h + u * conv.dilation_h - conv.pad_top;
        const int64_t j = column * conv.stride_w + v * conv.dilation_w - conv.pad_left;
        const bool outside = i < 0 || i >= conv.height || j < 0 || j >= conv.width;
        mid[q] = outside ? 0 : wide[((image * conv.height + i) * conv.width + j) * conv.channels + c];
        continue;
      }
      double sum = conv.pooled ? -INFINITY : numbers.depthwise_bias.empty() ? 0 : numbers.depthwise_bias[q];
      sizes[q] = conv.pooled ? 0 : fabs(sum);
      for (int64_t u = 0; u < conv.kernel_h; u++)
        for (int64_t v = 0; v < conv.kernel_w; v++) {
          const int64_t i = row * conv.stride_h + u * conv.dilation_h - conv.pad_top;
          const int64_t j = column * conv.stride_w + v * conv.dilation_w - conv.pad_left;
          if (i < 0 || i >= conv.height || j < 0 || j >= conv.width) continue;
          const int64_t from = ((image * conv.height + i) * conv.width + j) * conv.channels + q / conv.multiplier;
          const double product = conv.pooled ? 0 : wide[from] * numbers.depthwise[q * taps + u * conv.kernel_w + v];
          sum = conv.pooled ? fmax(sum, wide[from]) : sum + product;
          sizes[q] += fabs(product);
        }
      if (conv.kernel_h == 0) sum = wide[pixel * conv.channels + q];
      if (!numbers.gate.empty()) sum *= numbers.gate[image * conv.channels + q];
      const float value = (float)activated(conv.between, sum);
      mid[q] = half_mid ? rounded_to_bf16(value) : value;
    }
    const double grown = conv.normalized ? normalize(mid, conv.epsilon, half_mid) : 0;
    for (int64_t q = 0; conv.bare && q < mids; q++) {
      expected.y.push_back((float)mid[q]);
      expected.slack.push_back(expected.exact ? 0 : (sizes[q] + fabs(mid[q]) + 1) * unit);
    }
    for (int64_t o = 0; !conv.bare && o < conv.out_channels; o++) {
      double sum = numbers.bias.empty() ? 0 : numbers.bias[o], size = fabs(sum);
      for (int64_t q = 0; q < mids; q++) {
        const double product = mid[q] * numbers.pointwise[o * mids + q];
        sum += product;
        size += fabs(product);
      }
      if (!numbers.residual.empty()) {
        const double added = numbers.residual[pixel * conv.out_channels + o];
        sum += added, size += fabs(added);
      }
      if (size >= 0x1p24) {
        fprintf(stderr, "this case is too large: sums up to %g, exact in float32 only below 2^24\n", size);
        exit(2);
      }
      const float value = (float)activated(conv.activation, sum);
      expected.y.push_back(half_out ? rounded_to_bf16(value) : value);
      const double rounded = is_clamp(conv.between) ? 0x1p-22 : 0x1p-20;
      expected.slack.push_back(expected.exact ? 0 : (size + 1) * (unit + grown * rounded));
    }
  }
  return expected;
}
