// Weights in a kernel's own order, packed once for as long as they stay what they are.
//
// Weights count as unchanged when they lie at the same address in the same form, and
//     up to `compared_whole` bytes   every byte is equal;
//     above                          their version is equal (every change in place that PyTorch knows of raises it) and
//                                    so are some lines of memory spread over them: what writes past the version, as
//                                    `.data` does, changes whole weights as a rule.
// For an address to mean anything, whoever packs keeps the weights' memory alive. So nothing is kept of weights that
// were seen once: training and weights computed for each call hold no memory. Seen twice, they are kept on trial, within
// a limit, until their first use. Those unused for a minute are let go by the next call of any kind, those on trial also
// where weights that are used more often want their place.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "separable_conv2d/kernel.h"

namespace sepwise {

constexpr int64_t compared_whole = 16 * 1024;

// One weight as its owner holds it.
struct Source {
  const void* data = nullptr;  // null: there is none
  int64_t bytes = 0;           // from the beginning of its first number to the end of its last
  int64_t type = 0;
  int64_t strides[4] = {};
  int64_t version = 0;  // of weights above `compared_whole`
};

struct PackRequest {
  const Kernel* kernel;
  const Conv* conv;
  std::array<Source, 6> sources;
  bool may_keep;  // false: changes of the weights cannot be seen
};

// Memory on a boundary of 64 bytes.
class PackedWeights {
 public:
  explicit PackedWeights(size_t bytes);
  ~PackedWeights();
  PackedWeights(const PackedWeights&) = delete;
  PackedWeights& operator=(const PackedWeights&) = delete;
  void* data() const { return data_; }

 private:
  void* data_;
};

// The packed weights: kept ones, or those that `pack` has just written into the memory it is given. `hold` returns what
// keeps the memory of all sources alive. The result stays valid for as long as it is held; any thread may ask.
std::shared_ptr<const PackedWeights> packed_weights(const PackRequest& request,
                                                    const std::function<void(void*)>& pack,
                                                    const std::function<std::shared_ptr<void>()>& hold);

struct PackStatistics {
  int64_t kept, bytes;     // entries, and the memory they keep: packed weights and what they were packed from
  int64_t packed, reused;  // calls that packed, and calls that did not have to
};

PackStatistics pack_statistics();

// Lets go of what no call has used for so many seconds; 0: of everything.
void forget_packed_weights(int64_t idle_seconds);

}  // namespace sepwise
