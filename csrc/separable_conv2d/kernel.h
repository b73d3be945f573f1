// The contract of every kernel of separable_conv2d. Plain C++: no torch, nothing from std that could be inlined.
//
//     mid[p, q] = between(depthwise_bias[q] + sum over u,v of x[pixel(p, u, v), q / multiplier] * depthwise[q, u, v])
//     y[p, o]   = activation(bias[o] + sum over q of mid[p, q] * pointwise[o, q])
//
// Memory, all contiguous:
//     x           (batch, height, width, channels)                  type of the kernel
//     y           (batch, out_height, out_width, out_channels)      type of the kernel; every element is written once
//     depthwise   (channels * multiplier, kernel_h, kernel_w)       type of the kernel
//     pointwise   (out_channels, channels * multiplier)             type of the kernel
//     biases      (channels * multiplier,), (out_channels,)         type of the kernel, or null for zeros
//
// A kernel computes every Conv and owns all tails: it reads nothing outside x and writes nothing outside y, for any sizes >= 1.
// Sums run in float32. With bfloat16 inputs mid is rounded to bfloat16 once, y once. NaN and infinities pass through
// both steps and all activations as in PyTorch. Subnormal float32 numbers may count as zero (docs/numerics.md).
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace sepwise {

// The order of each enumeration is part of the operator's schema: append, never reorder.
enum class Activation : int64_t { none, relu, relu6, silu, hardswish, gelu, elu };
enum class Precision : int64_t { highest, high, medium };
enum class Type : int64_t { float32, bfloat16 };

// What a machine can run; a later one does not imply an earlier one (see cpu_features.h).
enum class Isa : int64_t { portable, avx2, avx512, avx512_bf16, amx };

// Sizes of one convolution. The caller has checked them: all >= 1 but the pads, which are >= 0, and the batch.
struct Conv {
  int64_t batch, channels, height, width;
  int64_t multiplier, out_channels, out_height, out_width;
  int64_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left;
  Activation between, activation;

  int64_t mid_channels() const { return channels * multiplier; }
  int64_t out_pixels() const { return batch * out_height * out_width; }
};

// Weights as PyTorch holds them.
struct Weights {
  const void* depthwise;
  const void* depthwise_bias;
  const void* pointwise;
  const void* bias;
};

// What a kernel needs of its host.
struct Host {
  // Runs job(context, 0), ..., job(context, jobs - 1), each once, on at most `threads` threads; returns when all are done.
  void (*parallel)(int64_t jobs, void (*job)(void* context, int64_t index), void* context);
  int64_t threads;
  // This thread's memory for as long as the thread lives: at least `bytes`, aligned to 4096; contents are kept only
  // until the next call with this slot (0 or 1).
  void* (*scratch)(int slot, size_t bytes);
};

struct Task {
  Conv conv;
  const void* packed;
  const void* x;
  void* y;
  Host host;
};

struct Kernel {
  const char* name;
  Isa needs;
  Type type;            // of x, y and the raw weights
  Precision precision;  // the strictest it satisfies
  // Packed weights depend on channels, multiplier, out_channels and the kernel's size only. 64-byte aligned memory.
  size_t (*packed_bytes)(const Conv&);
  void (*pack)(const Conv&, const Weights&, void* packed);
  void (*run)(const Task&);
  // Whether it is faster than those after it in kernels.inc; nullptr: always. Does not count where it is named.
  bool (*pays)(const Conv&) = nullptr;
};

}  // namespace sepwise
