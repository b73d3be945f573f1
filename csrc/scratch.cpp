#include "scratch.h"

#include <cstdlib>
#include <new>

namespace sepwise {
namespace {

constexpr size_t page = 4096;

class Slot {
 public:
  Slot() = default;
  Slot(const Slot&) = delete;
  Slot& operator=(const Slot&) = delete;
  ~Slot() { std::free(memory_); }

  void* at_least(size_t bytes) {
    if (bytes <= bytes_) return memory_;
    std::free(memory_);
    bytes_ = (bytes + page - 1) / page * page;
    memory_ = std::aligned_alloc(page, bytes_);
    if (memory_ != nullptr) return memory_;
    bytes_ = 0;
    throw std::bad_alloc();
  }

 private:
  void* memory_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace

void* scratch(int slot, size_t bytes) {
  thread_local Slot slots[2];
  return slots[slot].at_least(bytes);
}

}  // namespace sepwise
