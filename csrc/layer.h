// What a call computes, as PyTorch tells it: tensors of weights and settings, and from them what kernels understand.
// Written against the stable ABI of LibTorch, so one library serves every PyTorch from 2.11 on.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "packed_weights.h"
#include "separable_conv2d/dispatch.h"

namespace sepwise {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Sizes = std::vector<int64_t>;
using Size = std::array<int64_t, 4>;  // (N, C, H, W)

// Whatever it is computed of.
struct Layer {
  std::optional<Tensor> pointwise, depthwise, bias, depthwise_bias, expand, expand_bias;
  Activation between = Activation::none, activation = Activation::none, widening = Activation::none;
  std::optional<double> epsilon;    // of the normalization, where there is one
  Sizes stride, padding, dilation;  // (vertical, horizontal); padding (top, left, bottom, right)
  Sizes expand_stride = {1, 1}, expand_padding = {0, 0, 0, 0};  // likewise, of `expand`
  Sizes window = {0, 0};            // where its largest number is looked for, in the place of a depthwise step
  Precision precision = Precision::highest;
  std::string kernel_name;  // empty: the first that can

  std::array<std::optional<Tensor>, 6> weights() const {
    return {depthwise, depthwise_bias, pointwise, bias, expand, expand_bias};
  }
};

// Python has explained what does not fit; here it is only asserted. `x`: the size of what the layer reads. `gated`: whether
// that is multiplied with a gate first, for which a pointwise layer copies it; others read it where it lies.
Conv conv_of(const Layer& layer, const Size& x, bool gated = false);
Type type_of(ScalarType type);

// A second tensor on the same memory: what is done to the first, a new `.data` for instance, does not free that.
Tensor alias(const Tensor& tensor);

// The weights in the kernel's order; see packed_weights.h.
std::shared_ptr<const PackedWeights> packed(const Layer& layer, ScalarType type, const Conv& conv, const Kernel& kernel);

// PyTorch's threads, and this library's scratch memory.
Host host();

// The same numbers in the order (batch, height, width, channels); x itself where they lie so.
Tensor laid_out(const Tensor& x);

}  // namespace sepwise
