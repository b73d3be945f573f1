// Layers that follow each other, run in one call: values between them lie in one piece of memory, where each takes the
// place of one that nobody reads any more, so that they stay near; and while a layer ends, the weights of the next one
// come. Plain C++: no torch.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "packed_weights.h"
#include "separable_conv2d/kernel.h"

namespace sepwise {

// Numbers in the order (batch, height, width, channels).
struct Value {
  int64_t batch, height, width, channels;
  int64_t numbers() const { return batch * height * width * channels; }
};

// One step; values are counted in order: those given, then one for each step.
struct Step {
  const Kernel* kernel = nullptr;  // null: the source times the gate, or without one its mean over height and width
  Conv conv{};
  std::shared_ptr<const PackedWeights> weights{};
  int64_t source = 0, residual = -1, gate = -1;  // values; -1: none
};

class Program {
 public:
  Program(Type type, std::vector<Value> given) : type_(type), given_(given.size()), values_(std::move(given)) {}

  int64_t given() const { return given_; }
  const Value& value(int64_t index) const { return values_.at(index); }
  int64_t values() const { return static_cast<int64_t>(values_.size()); }

  void add(Step step, const Value& result);
  // After the last step: which values are asked for, steps' results each; plans where all others lie.
  void finish(std::vector<int64_t> returned);

  const std::vector<int64_t>& returned() const { return returned_; }
  // Of the memory that `run` needs, on a boundary of 64 bytes.
  size_t memory_bytes() const { return memory_bytes_; }

  // `given` and `returned`: where the values lie, and are to lie.
  void run(const std::vector<const void*>& given, const std::vector<void*>& returned, void* memory,
           const Host& host) const;

 private:
  struct Steps {
    const Program* program;
    std::vector<const void*> at;  // where all values lie
  };
  void run_steps(const std::vector<const void*>& at, const Host& host) const;

  Type type_;
  int64_t given_;
  std::vector<Value> values_;
  std::vector<Step> steps_;
  std::vector<int64_t> returned_;
  std::vector<size_t> places_;  // in the memory, of steps' results that are not returned
  size_t memory_bytes_ = 0;

  size_t bytes(int64_t value) const { return values_[value].numbers() * (type_ == Type::float32 ? 4 : 2); }
};

}  // namespace sepwise
