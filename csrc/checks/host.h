// The host that kernels run on in the checks: real threads, scratch memory between guards, the floating-point state of
// every thread compared before and after.
#pragma once

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "../separable_conv2d/kernel.h"
#include "slab.h"
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

inline int64_t host_threads = 1;
inline Place host_place = Place::back;
inline std::atomic<const char*> host_complaint = nullptr;

inline uint64_t floating_point_state() {
#if defined(__x86_64__)
  return _mm_getcsr() & ~0x3fu;  // without the flags of what has happened
#elif defined(__aarch64__)
  uint64_t control;
  asm volatile("mrs %0, fpcr" : "=r"(control));
  return control;
#else
  return 0;
#endif
}

struct Scratch {
  std::unique_ptr<Slab> slots[2];
  void replace(int slot, Slab* slab) {
    if (slots[slot] && !slots[slot]->clean()) host_complaint = "wrote past its scratch memory";
    slots[slot].reset(slab);
  }
  ~Scratch() {
    replace(0, nullptr);
    replace(1, nullptr);
  }
};

inline void* host_scratch(int slot, size_t bytes) {
  thread_local Scratch scratch;
  scratch.replace(slot, new Slab("scratch", bytes, 4096, host_place));
  return scratch.slots[slot]->data();
}

inline void host_parallel(int64_t jobs, void (*job)(void*, int64_t), void* context) {
  std::atomic<int64_t> next = 0;
  const auto work = [&] {
    const uint64_t before = floating_point_state();
    for (int64_t index; (index = next++) < jobs;) job(context, index);
    if (floating_point_state() != before) host_complaint = "changed the floating-point state of its thread";
  };
  std::vector<std::thread> threads;
  for (int64_t i = 0; i < host_threads; i++) threads.emplace_back(work);
  for (std::thread& thread : threads) thread.join();
}
