// The contract of every kernel of separable_conv2d. Plain C++: no torch, nothing from std that could be inlined.
//
//     wide[p, c] = widening(expand_bias[c] + sum over i,u,v of x[pixel(p, u, v), i] * expand[c, i, u, v])
//                                                                                             where expanded; else x[p, c]
//     mid[p, q]  = between(depthwise_bias[q] + sum over u,v of wide[pixel(p, u, v), q / multiplier] * depthwise[q, u, v])
//     mid[p, q]  = (mid[p, q] - mean over q) / sqrt(variance over q + epsilon)                where normalized
//     y[p, o]    = activation(bias[o] + sum over q of mid[p, q] * pointwise[o, q] + residual[p, o])
//
// Where pooled, mid[p, q] = between(the largest wide[pixel(p, u, v), q] of all u, v inside the picture), without weights:
// NaN where one of them is, -inf where there is none.
// Outside the picture wide is zero, not what zeros widen to. Without a depthwise step, a kernel of 0 by 0, mid = wide;
// there, what is gated is x[p, c] * gate[image(p), c] in the place of x[p, c]. What is bare ends with mid: y[p, q] = mid[p, q].
// Where gathered, q stands for (u, v, c) and mid[p, (u, v, c)] = wide[pixel(p, u, v), c]: a dense convolution, of 1 by 1
// too; only what is gated or normalized without a depthwise step has a kernel of 0 by 0.
//
// Memory, all contiguous:
//     x           (batch, height, width, channels, or expanded)     type of the kernel; (x_height, x_width) where a kernel
//                                                                   expands it
//     y, residual (batch, out_height, out_width, out_channels)      type of the kernel; every element of y is written once
//     expand      (channels, expanded), or (channels, expanded, expand_h, expand_w)    type of the kernel
//     depthwise   (channels * multiplier, kernel_h, kernel_w)       type of the kernel; null where pooled
//     pointwise   (out_channels, channels * multiplier)             type of the kernel
//                 (out_channels, channels, kernel_h, kernel_w)      where gathered
//     biases      (channels,), (channels * multiplier,), (out_channels,)    type of the kernel, or null for zeros
//     gate        (batch, channels)                                 type of the kernel
//
// A kernel computes every Conv and owns all tails: it reads nothing outside x and writes nothing outside y, for any sizes >= 1.
// Sums run in float32. With bfloat16 inputs wide, mid and y are rounded to bfloat16 once, mid once more where it is
// normalized. NaN and infinities pass through all steps and activations as in PyTorch, but for the NaN of winograd.h.
// Subnormal float32 numbers may count as zero (docs/numerics.md).
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace sepwise {

// The order of each enumeration is part of the operator's schema: append, never reorder.
enum class Activation : int64_t { none, relu, relu6, silu, hardswish, gelu, elu, sigmoid, hardsigmoid };
constexpr Activation last_activation = Activation::hardsigmoid;
enum class Precision : int64_t { highest, high, medium };
enum class Type : int64_t { float32, bfloat16 };

// What a machine can run; a later one does not imply an earlier one (see cpu_features.h).
enum class Isa : int64_t { portable, avx2, avx512, avx512_bf16, amx };

// Sizes of one convolution. The caller has checked them: all >= 1 but the pads, which are >= 0, and the batch; a kernel
// of 0 by 0 has stride, dilation and multiplier 1 and no pads and is not expanded; what is gathered is not multiplied; what
// is bare has a depthwise step of multiplier 1 and as many out_channels as channels, and is not normalized; what is
// pooled is bare.
struct Conv {
  int64_t batch, channels, height, width;
  int64_t multiplier, out_channels, out_height, out_width;
  int64_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left;
  Activation between, activation;
  int64_t expanded = 0;  // channels of x where they are expanded to `channels`; 0: they are not
  // The kernel that expands, its strides and pads, and the size of x; 0 by 0: one pixel, and x has the size of wide.
  int64_t expand_h = 0, expand_w = 0, expand_stride_h = 1, expand_stride_w = 1, expand_top = 0, expand_left = 0;
  int64_t x_height = 0, x_width = 0;
  Activation widening = Activation::none;
  bool normalized = false, gathered = false, bare = false, pooled = false;
  float epsilon = 0;

  int64_t in_channels() const { return expanded ? expanded : channels; }
  int64_t mid_channels() const { return gathered ? channels * kernel_h * kernel_w : channels * multiplier; }
  int64_t in_pixels() const { return batch * (expand_h ? x_height * x_width : height * width); }
  int64_t out_pixels() const { return batch * out_height * out_width; }
  bool has_depthwise() const { return kernel_h > 0 && !gathered && !pooled; }
};

// Weights as PyTorch holds them; `depthwise`, `pointwise` and `expand` null where there is no such step.
struct Weights {
  const void* depthwise;
  const void* depthwise_bias;
  const void* pointwise;
  const void* bias;
  const void* expand = nullptr;
  const void* expand_bias = nullptr;
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
  const void* residual = nullptr;  // added before the activation; null: nothing is, as where the pointwise step is left out
  const void* gate = nullptr;      // null: nothing is gated, as where there is a depthwise step or x is gathered
  // What the next call will read first, its packed weights for instance: comes nearer while this one ends.
  const void* soon = nullptr;
  size_t soon_bytes = 0;
};

struct Kernel {
  const char* name;
  Isa needs;
  Type type;            // of x, y and the raw weights
  Precision precision;  // the strictest it satisfies
  // Packed weights depend on channels, multiplier, out_channels, expanded, gathered, bare, pooled and the kernels'
  // sizes, strides and dilations only: not on the size of the picture.
  // 64-byte aligned memory.
  size_t (*packed_bytes)(const Conv&);
  void (*pack)(const Conv&, const Weights&, void* packed);
  void (*run)(const Task&);
  // Whether it is faster than those after it in kernels.inc; nullptr: always. Does not count where it is named.
  bool (*pays)(const Conv&) = nullptr;
  // Whether it knows more than a depthwise step and a pointwise one.
  bool knows_blocks = true;
};

// Whether there is more to this call than a depthwise step and a pointwise one.
inline bool is_block(const Conv& conv, bool adds) {
  return conv.expanded || conv.normalized || conv.bare || !conv.has_depthwise() || adds;
}

}  // namespace sepwise
