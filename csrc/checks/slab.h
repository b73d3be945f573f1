// Memory whose neighbourhood is watched: a page that faults when touched right before or right after it, and a pattern
// in what is left of its own pages. The pattern, all ones, is NaN as float32 and as bfloat16, and so is the fresh
// memory itself: whoever reads what nobody wrote computes NaN.
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <mutex>
#include <set>

enum class Place { front, back, heap };  // heap: plain malloc, which AddressSanitizer watches

inline const char* name_of(Place place) {
  return place == Place::front ? "front" : place == Place::back ? "back" : "heap";
}

class Slab {
 public:
  Slab(const char* name, size_t bytes, size_t alignment, Place place) : name_(name), bytes_(bytes), place_(place) {
    if (place == Place::heap) {
      if (posix_memalign((void**)&data_, alignment < 8 ? 8 : alignment, bytes ? bytes : 1) != 0) abort();
      pages_ = data_, pages_bytes_ = bytes;
    } else {
      const size_t page = sysconf(_SC_PAGESIZE);
      pages_bytes_ = (bytes + page - 1) / page * page;
      mapped_ = (char*)mmap(nullptr, pages_bytes_ + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (mapped_ == MAP_FAILED) abort();
      pages_ = mapped_ + page;
      mapped_bytes_ = pages_bytes_ + 2 * page;
      if (pages_bytes_ && mprotect(pages_, pages_bytes_, PROT_READ | PROT_WRITE) != 0) abort();
      data_ = place == Place::front ? pages_ : pages_ + (pages_bytes_ - bytes) / alignment * alignment;
    }
    memset(pages_, 0xff, pages_bytes_);
    const std::lock_guard<std::mutex> hold(mutex());
    all().insert(this);
  }
  Slab(const Slab&) = delete;
  ~Slab() {
    {
      const std::lock_guard<std::mutex> hold(mutex());
      all().erase(this);
    }
    if (place_ == Place::heap)
      free(data_);
    else
      munmap(mapped_, mapped_bytes_);
  }

  char* data() const { return data_; }

  // Whether what lies between the memory and its faulting pages still holds the pattern.
  bool clean() const {
    for (const char* p = pages_; p < pages_ + pages_bytes_; p++)
      if ((p < data_ || p >= data_ + bytes_) && *p != (char)0xff) return false;
    return true;
  }

  // One sentence about an address that faulted; called from a signal handler, so it takes no lock.
  static void describe(const char* address) {
    for (const Slab* slab : all()) {
      const char* end = slab->mapped_ + slab->mapped_bytes_;
      if (slab->place_ == Place::heap || address < slab->mapped_ || address >= end) continue;
      if (address < slab->data_)
        fprintf(stderr, "touched %s %ld bytes before its first\n", slab->name_, (long)(slab->data_ - address));
      else
        fprintf(stderr, "touched %s %ld bytes past its %ld\n", slab->name_,
                (long)(address - slab->data_ - slab->bytes_), (long)slab->bytes_);
      return;
    }
    fprintf(stderr, "touched %p, which belongs to nothing of this call\n", (const void*)address);
  }

 private:
  static std::set<const Slab*>& all() {
    static std::set<const Slab*> slabs;
    return slabs;
  }
  static std::mutex& mutex() {
    static std::mutex one;
    return one;
  }

  const char* name_;
  size_t bytes_;
  Place place_;
  char* data_ = nullptr;
  char* pages_ = nullptr;
  char* mapped_ = nullptr;
  size_t pages_bytes_ = 0, mapped_bytes_ = 0;
};
