#include "layer.h"

#include <atomic>
#include <new>
#include <utility>

#include "scratch.h"

namespace sepwise {
namespace {

using torch::headeronly::MemoryFormat;
using torch::stable::detail::from;
using torch::stable::detail::to;

// Within a parallel region PyTorch runs all jobs on this thread.
void parallel(int64_t jobs, void (*job)(void*, int64_t), void* context) {
  if (jobs == 1) return job(context, 0);
  std::atomic<bool> out_of_memory = false;
  torch::stable::parallel_for(0, jobs, 1, [&](int64_t begin, int64_t end) {
    try {
      for (int64_t index = begin; index < end; index++) job(context, index);
    } catch (const std::bad_alloc&) {  // an error in here would arrive without its text
      out_of_memory = true;
    }
  });
  if (out_of_memory) throw std::bad_alloc();
}

int64_t extent(int64_t size, int64_t before, int64_t after, int64_t kernel, int64_t stride, int64_t dilation) {
  const int64_t room = size + before + after - dilation * (kernel - 1) - 1;
  STD_TORCH_CHECK(room >= 0, "sepwise::separable_conv2d: the output would be empty");
  return room / stride + 1;
}

// A value in `what` asked of PyTorch's dispatcher.
template <class T>
T ask(const char* what, const Tensor& tensor) {
  std::array<StableIValue, 1> stack{from(tensor)};
  STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher(what, "", stack.data(), TORCH_ABI_VERSION));
  return to<T>(stack[0]);
}

Source source_of(const std::optional<Tensor>& tensor, bool& may_keep) {
  Source source;
  if (!tensor) return source;
  const auto sizes = tensor->sizes(), strides = tensor->strides();
  int64_t last = 0;
  for (size_t axis = 0; axis < sizes.size(); axis++) {
    last += (sizes[axis] - 1) * strides[axis];
    source.strides[axis] = strides[axis];
  }
  source.data = tensor->const_data_ptr();
  source.bytes = (last + 1) * static_cast<int64_t>(tensor->element_size());
  source.type = static_cast<int64_t>(tensor->scalar_type());
  if (source.bytes <= compared_whole) return source;
  if (ask<bool>("aten::is_inference", *tensor))
    may_keep = false;  // tensors made in inference mode do not count their changes
  else
    source.version = ask<int64_t>("aten::_version", *tensor);
  return source;
}

// Whether the numbers lie as in (batch, height, width, channels); axes of one element lie anywhere.
bool is_channels_last(const Tensor& x) {
  const auto sizes = x.sizes(), strides = x.strides();
  int64_t expected = 1;
  for (int axis : {1, 3, 2, 0}) {
    if (sizes[axis] != 1 && strides[axis] != expected) return false;
    expected *= sizes[axis];
  }
  return true;
}

}  // namespace

Conv conv_of(const Layer& a, const Size& x, bool gated) {
  STD_TORCH_CHECK((!a.depthwise || a.depthwise->dim() == 4) && (!a.pointwise || a.pointwise->dim() == 4) &&
                      (!a.expand || a.expand->dim() == 4) && a.stride.size() == 2 && a.padding.size() == 4 &&
                      a.dilation.size() == 2,
                  "sepwise::separable_conv2d: tensors need four axes, padding four numbers, stride and dilation two");
  const bool pools = a.window != Sizes({0, 0});
  STD_TORCH_CHECK(a.pointwise || a.depthwise || pools,
                  "sepwise::fused_block: there is neither a depthwise nor a pointwise step");
  STD_TORCH_CHECK(!pools || !(a.pointwise || a.depthwise || a.depthwise_bias),
                  "sepwise::fused_block: what is pooled has no weights of its own");
  for (int64_t size : {x[1], x[2], x[3], a.stride[0], a.stride[1], a.dilation[0], a.dilation[1]})
    STD_TORCH_CHECK(size >= 1, "sepwise::separable_conv2d: sizes, stride and dilation start at 1");
  for (const Sizes& pads : {a.padding, a.expand_padding})
    for (int64_t pad : pads) STD_TORCH_CHECK(pad >= 0, "sepwise::separable_conv2d: padding starts at 0");
  Conv conv{};
  conv.batch = x[0], conv.channels = x[1], conv.height = x[2], conv.width = x[3];
  conv.multiplier = 1;
  if (a.expand) {
    const auto expand = a.expand->sizes();
    STD_TORCH_CHECK(expand[0] >= 1 && expand[1] == x[1] && expand[2] >= 1 && expand[3] >= 1,
                    "sepwise::fused_block: expand must be (E, C, 1, 1) for an x of C channels, in a program (E, C, KH, KW)");
    conv.expanded = x[1], conv.channels = expand[0];
    const Sizes& stride = a.expand_stride;
    const Sizes& pads = a.expand_padding;
    if (expand[2] > 1 || expand[3] > 1 || stride != Sizes({1, 1}) || pads != Sizes({0, 0, 0, 0})) {
      STD_TORCH_CHECK(stride.size() == 2 && pads.size() == 4 && stride[0] >= 1 && stride[1] >= 1,
                      "sepwise::fused_block: strides of what expands x start at 1");
      conv.expand_h = expand[2], conv.expand_w = expand[3], conv.x_height = x[2], conv.x_width = x[3];
      conv.expand_stride_h = stride[0], conv.expand_stride_w = stride[1];
      conv.expand_top = pads[0], conv.expand_left = pads[1];
      conv.height = extent(x[2], pads[0], pads[2], expand[2], stride[0], 1);
      conv.width = extent(x[3], pads[1], pads[3], expand[3], stride[1], 1);
    }
  }
  if (a.depthwise) {
    const auto depthwise = a.depthwise->sizes();
    STD_TORCH_CHECK(depthwise[0] >= 1 && depthwise[2] >= 1 && depthwise[3] >= 1 && depthwise[0] % conv.channels == 0 &&
                        depthwise[1] == 1,
                    "sepwise::separable_conv2d: depthwise must be (C * multiplier, 1, KH, KW)");
    conv.multiplier = depthwise[0] / conv.channels;
    conv.kernel_h = depthwise[2], conv.kernel_w = depthwise[3];
  }
  if (pools) {
    STD_TORCH_CHECK(a.window.size() == 2 && a.window[0] >= 1 && a.window[1] >= 1,
                    "sepwise::fused_block: the sizes of a window start at 1");
    conv.pooled = true, conv.kernel_h = a.window[0], conv.kernel_w = a.window[1];
  }
  if (a.pointwise) {
    const auto pointwise = a.pointwise->sizes();
    STD_TORCH_CHECK(pointwise[0] >= 1 && pointwise[1] >= 1 && pointwise[2] >= 1 && pointwise[3] >= 1,
                    "sepwise::separable_conv2d: sizes start at 1");
    conv.out_channels = pointwise[0];
    if (a.depthwise) {
      STD_TORCH_CHECK(pointwise[1] == conv.mid_channels() && pointwise[2] == 1 && pointwise[3] == 1,
                      "sepwise::separable_conv2d: pointwise must be (O, C * multiplier, 1, 1)");
    } else {
      const bool reaches = pointwise[2] > 1 || pointwise[3] > 1 || a.stride != Sizes({1, 1}) ||
                           a.padding != Sizes({0, 0, 0, 0});
      conv.gathered = reaches || !(gated || a.epsilon);
      if (conv.gathered) conv.kernel_h = pointwise[2], conv.kernel_w = pointwise[3];
      STD_TORCH_CHECK(!a.depthwise_bias && a.between == Activation::none,
                      "sepwise::fused_block: without a depthwise step there is nothing to be activated after it");
      STD_TORCH_CHECK(pointwise[1] == conv.channels,
                      "sepwise::fused_block: without a depthwise step, pointwise must be (O, C, KH, KW)");
      STD_TORCH_CHECK(!a.expand || reaches,
                      "sepwise::fused_block: a depthwise step must follow what expands x, or a dense convolution");
    }
  } else {
    conv.bare = true, conv.out_channels = conv.channels;
    STD_TORCH_CHECK(conv.multiplier == 1 && !a.bias && a.activation == Activation::none && !a.epsilon,
                    "sepwise::fused_block: without a pointwise step there is one filter for each channel, and nothing "
                    "comes after them");
  }
  const int64_t mids = a.depthwise ? conv.mid_channels() : 0, wides = a.expand ? conv.channels : 0;
  for (const auto& [bias, length] : {std::pair{&a.bias, conv.out_channels}, std::pair{&a.depthwise_bias, mids},
                                     std::pair{&a.expand_bias, wides}})
    STD_TORCH_CHECK(!*bias || ((*bias)->dim() == 1 && (*bias)->size(0) == length),
                    "sepwise::separable_conv2d: a bias must hold one number for each channel");
  conv.stride_h = a.stride[0], conv.stride_w = a.stride[1];
  conv.dilation_h = a.dilation[0], conv.dilation_w = a.dilation[1];
  conv.pad_top = a.padding[0], conv.pad_left = a.padding[1];
  const int64_t kernel_h = conv.kernel_h ? conv.kernel_h : 1, kernel_w = conv.kernel_w ? conv.kernel_w : 1;
  conv.out_height = extent(conv.height, a.padding[0], a.padding[2], kernel_h, conv.stride_h, conv.dilation_h);
  conv.out_width = extent(conv.width, a.padding[1], a.padding[3], kernel_w, conv.stride_w, conv.dilation_w);
  conv.between = a.between, conv.activation = a.activation, conv.widening = a.widening;
  conv.normalized = a.epsilon.has_value(), conv.epsilon = static_cast<float>(a.epsilon.value_or(0));
  STD_TORCH_CHECK(!(conv.normalized && conv.gathered), "sepwise::fused_block: patches of a kernel are not normalized");
  return conv;
}

Type type_of(ScalarType type) {
  STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::BFloat16,
                  "sepwise::separable_conv2d: x must be float32 or bfloat16");
  return type == ScalarType::Float ? Type::float32 : Type::bfloat16;
}

Tensor alias(const Tensor& tensor) {
  AtenTensorHandle handle = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch__reinterpret_tensor(tensor.get(), tensor.dim(), tensor.sizes().data(),
                                                               tensor.strides().data(), tensor.storage_offset(),
                                                               &handle));
  return Tensor(handle);
}

std::shared_ptr<const PackedWeights> packed(const Layer& layer, ScalarType type, const Conv& conv,
                                            const Kernel& kernel) {
  const auto weights = layer.weights();
  PackRequest request{&kernel, &conv, {}, true};
  for (size_t i = 0; i < weights.size(); i++) request.sources[i] = source_of(weights[i], request.may_keep);

  const auto pack = [&](void* memory) {
    std::array<std::optional<Tensor>, 6> plain = weights;
    std::array<const void*, 6> data{};
    for (size_t i = 0; i < weights.size(); i++) {
      if (!plain[i]) continue;
      plain[i] = torch::stable::contiguous(torch::stable::to(*plain[i], type));
      data[i] = plain[i]->const_data_ptr();
    }
    kernel.pack(conv, Weights{data[0], data[1], data[2], data[3], data[4], data[5]}, memory);
  };
  const auto hold = [&]() -> std::shared_ptr<void> {
    auto held = std::make_shared<std::vector<Tensor>>();
    for (const auto& weight : weights)
      if (weight) held->push_back(alias(*weight));
    return held;
  };
  return packed_weights(request, pack, hold);
}

Host host() { return {parallel, torch::stable::get_num_threads(), scratch}; }

Tensor laid_out(const Tensor& x) {
  return is_channels_last(x) ? x : torch::stable::contiguous(x, MemoryFormat::ChannelsLast);
}

}  // namespace sepwise
