#include "packed_weights.h"

#include <pthread.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <optional>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

namespace sepwise {
namespace {

constexpr int64_t most_bytes = int64_t(1) << 30, most_bytes_on_trial = int64_t(64) << 20;
constexpr int64_t second = 1'000'000'000, idle = 60 * second;
constexpr int64_t line = 64, sampled_lines = 64;
constexpr size_t alignment = 64;

uint64_t mix(uint64_t hash, uint64_t value) {
  hash = (hash ^ value) * 0x9e3779b97f4a7c15u;
  return hash ^ hash >> 29;
}

// In nanoseconds.
int64_t now() {
  using namespace std::chrono;
  return duration_cast<nanoseconds>(steady_clock::now().time_since_epoch()).count();
}

// Where and in what form weights lie, and for which kernel they are packed: packed weights depend on nothing else of a
// convolution.
constexpr size_t sources = std::tuple_size_v<decltype(PackRequest::sources)>;
constexpr size_t of_sources = 18;  // the first numbers that are theirs
using Key = std::array<int64_t, of_sources + sources * 7>;

Key key_of(const PackRequest& request) {
  const Conv& conv = *request.conv;
  Key key = {reinterpret_cast<int64_t>(request.kernel),
             conv.channels, conv.multiplier, conv.out_channels, conv.expanded,
             conv.gathered, conv.bare, conv.pooled,
             conv.kernel_h, conv.kernel_w, conv.stride_h, conv.stride_w, conv.dilation_h, conv.dilation_w,
             conv.expand_h, conv.expand_w, conv.expand_stride_h, conv.expand_stride_w};
  int64_t* next = key.data() + of_sources;
  for (const Source& source : request.sources) {
    *next++ = reinterpret_cast<int64_t>(source.data);
    *next++ = source.bytes;
    *next++ = source.type;
    for (int64_t stride : source.strides) *next++ = stride;
  }
  return key;
}

struct KeyHash {
  size_t operator()(const Key& key) const {
    uint64_t hash = 0;
    for (int64_t part : key) hash = mix(hash, static_cast<uint64_t>(part));
    return hash;
  }
};

// The parts of a weight's memory that are compared: all of it, or lines in no step that rows of weights could have.
template <class Visit>
bool each_part(const Source& source, Visit visit) {
  const char* data = static_cast<const char*>(source.data);
  if (source.bytes <= compared_whole) return source.bytes == 0 || visit(data, source.bytes);
  const uint64_t lines = static_cast<uint64_t>(source.bytes / line);
  for (uint64_t i = 0; i < sampled_lines; i++) {
    const uint64_t fraction = i * 0x9e3779b9u & 0xffffffffu;  // of 2^32, by steps of the golden ratio
    if (!visit(data + (fraction * lines >> 32) * line, line)) return false;
  }
  return visit(data + source.bytes - line, line);
}

// What weights were when they were packed.
class Snapshot {
 public:
  explicit Snapshot(const PackRequest& request) {
    for (size_t i = 0; i < sources; i++) {
      versions_[i] = request.sources[i].version;
      each_part(request.sources[i], [&](const char* data, int64_t bytes) {
        content_.insert(content_.end(), data, data + bytes);
        return true;
      });
    }
  }

  bool still_true(const PackRequest& request) const {
    const char* seen = content_.data();
    for (size_t i = 0; i < sources; i++) {
      const bool same = request.sources[i].version == versions_[i] &&
                        each_part(request.sources[i], [&](const char* data, int64_t bytes) {
                          const bool equal = std::memcmp(seen, data, bytes) == 0;
                          seen += bytes;
                          return equal;
                        });
      if (!same) return false;
    }
    return true;
  }

  uint64_t hash() const {
    uint64_t hash = 0;
    for (int64_t version : versions_) hash = mix(hash, static_cast<uint64_t>(version));
    for (size_t at = 0; at < content_.size(); at += 8) {
      uint64_t word = 0;
      std::memcpy(&word, content_.data() + at, content_.size() - at < 8 ? content_.size() - at : 8);
      hash = mix(hash, word);
    }
    return hash;
  }

 private:
  int64_t versions_[sources];
  std::vector<char> content_;
};

// Immutable once it is in the table, but for its last two members.
struct Entry {
  Entry(Snapshot&& snapshot, std::shared_ptr<const PackedWeights> packed, std::shared_ptr<void> held, int64_t bytes)
      : snapshot(std::move(snapshot)), packed(std::move(packed)), held(std::move(held)), bytes(bytes) {}

  const Snapshot snapshot;
  const std::shared_ptr<const PackedWeights> packed;
  const std::shared_ptr<void> held;
  const int64_t bytes;
  std::atomic<int64_t> last_used{now()};
  std::atomic<bool> on_trial{true};
};

class Cache {
 public:
  Cache();

  std::shared_ptr<const PackedWeights> find(const Key& key, const PackRequest& request) {
    const int64_t time = now();
    std::shared_ptr<Entry> entry;
    Dropped dropped;
    {
      std::lock_guard lock(mutex_);
      if (time >= next_sweep_) {
        drop(dropped, [=](const Entry& each) { return time - each.last_used >= idle; });
        next_sweep_ = time + idle / 6;
      }
      const auto found = entries_.find(key);
      if (found != entries_.end()) entry = found->second;
    }
    if (entry == nullptr || !entry->snapshot.still_true(request)) return nullptr;
    entry->last_used.store(time, std::memory_order_relaxed);
    entry->on_trial.store(false, std::memory_order_relaxed);
    reused_.fetch_add(1, std::memory_order_relaxed);
    return entry->packed;
  }

  // How long ago weights that looked like this were packed before, or nothing; remembers that they are now.
  std::optional<int64_t> since_last_sight(const Key& key, const Snapshot& snapshot) {
    packed_.fetch_add(1, std::memory_order_relaxed);
    const Sight sight{mix(KeyHash()(key), snapshot.hash()), now()};
    std::lock_guard lock(mutex_);
    auto& places = seen_[sight.hash % seen_.size()];
    const auto same = [&](const Sight& each) { return each.hash == sight.hash; };
    const auto earlier = [](const Sight& a, const Sight& b) { return a.when < b.when; };
    auto place = std::find_if(places.begin(), places.end(), same);
    const bool again = place != places.end();
    if (!again) place = std::min_element(places.begin(), places.end(), earlier);
    const Sight before = std::exchange(*place, sight);
    return again ? std::optional(sight.when - before.when) : std::nullopt;
  }

  // What was kept under this key is no longer true; `entry`, if any, takes its place. `interval`: between its uses.
  void replace(const Key& key, std::shared_ptr<Entry> entry, int64_t interval) {
    Dropped dropped;
    std::lock_guard lock(mutex_);
    const auto found = entries_.find(key);
    if (found != entries_.end()) {
      dropped.push_back(std::move(found->second));
      entries_.erase(found);
    }
    if (entry == nullptr) return;
    if (!fits(*entry)) {
      // Those that are in use stay: taking turns would leave nobody a use. Whoever is on trial and has missed two uses
      // of this one is not.
      const int64_t time = now();
      drop(dropped, [=](const Entry& each) { return each.on_trial && time - each.last_used > 2 * interval; });
    }
    if (fits(*entry) || entries_.empty()) entries_.emplace(key, std::move(entry));
  }

  PackStatistics statistics() {
    std::lock_guard lock(mutex_);
    int64_t bytes = 0;
    for (const auto& [_, entry] : entries_) bytes += entry->bytes;
    return {static_cast<int64_t>(entries_.size()), bytes, packed_, reused_};
  }

  void forget(int64_t seconds) {
    Dropped dropped;
    std::lock_guard lock(mutex_);
    const int64_t time = now();
    drop(dropped, [=](const Entry& each) { return time - each.last_used >= seconds * second; });
    seen_.fill({});
  }

  // A child of fork has only the thread that forked: nobody would open a lock that another thread had closed.
  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

 private:
  // Declared before the lock, so destroyed after it is open: freeing a tensor's memory may run foreign code, which may
  // wait for Python, which may wait for us.
  using Dropped = std::vector<std::shared_ptr<Entry>>;

  template <class Condition>
  void drop(Dropped& dropped, Condition condition) {
    for (auto item = entries_.begin(); item != entries_.end();) {
      const bool chosen = condition(*item->second);
      if (chosen) dropped.push_back(std::move(item->second));
      item = chosen ? entries_.erase(item) : std::next(item);
    }
  }

  bool fits(const Entry& entry) const {
    int64_t all = entry.bytes, on_trial = entry.bytes;
    for (const auto& [_, other] : entries_) {
      all += other->bytes;
      if (other->on_trial) on_trial += other->bytes;
    }
    return all <= most_bytes && on_trial <= most_bytes_on_trial;
  }

  struct Sight {
    uint64_t hash = 0;
    int64_t when = 0;
  };

  std::mutex mutex_;
  std::unordered_map<Key, std::shared_ptr<Entry>, KeyHash> entries_;
  // Several places for each hash: with one, two weights of a network that share it would take turns and never be kept.
  std::array<std::array<Sight, 8>, 512> seen_{};
  int64_t next_sweep_ = 0;
  std::atomic<int64_t> packed_{0}, reused_{0};
};

// Never destroyed: at the end of the process PyTorch may be gone before us.
Cache& cache() {
  static Cache& only = *new Cache;
  return only;
}

Cache::Cache() {
  const auto lock = [] { cache().lock(); };
  const auto unlock = [] { cache().unlock(); };
  pthread_atfork(lock, unlock, unlock);
}

}  // namespace

PackedWeights::PackedWeights(size_t bytes)
    : data_(std::aligned_alloc(alignment, (bytes / alignment + 1) * alignment)) {  // 0 bytes need an address, too
  if (data_ == nullptr) throw std::bad_alloc();
}

PackedWeights::~PackedWeights() { std::free(data_); }

std::shared_ptr<const PackedWeights> packed_weights(const PackRequest& request,
                                                    const std::function<void(void*)>& pack,
                                                    const std::function<std::shared_ptr<void>()>& hold) {
  const Key key = key_of(request);
  if (request.may_keep)
    if (auto found = cache().find(key, request)) return found;
  const size_t bytes = request.kernel->packed_bytes(*request.conv);
  if (!request.may_keep) {
    auto fresh = std::make_shared<PackedWeights>(bytes);
    pack(fresh->data());
    return fresh;
  }
  Snapshot snapshot(request);  // before packing: who changes weights meanwhile is found out by the next call
  auto fresh = std::make_shared<PackedWeights>(bytes);
  pack(fresh->data());
  int64_t all = static_cast<int64_t>(bytes);
  for (const Source& source : request.sources) all += source.bytes;
  const std::optional<int64_t> interval = cache().since_last_sight(key, snapshot);
  auto entry = interval ? std::make_shared<Entry>(std::move(snapshot), fresh, hold(), all) : nullptr;
  cache().replace(key, std::move(entry), interval.value_or(0));
  return fresh;
}

PackStatistics pack_statistics() { return cache().statistics(); }
void forget_packed_weights(int64_t idle_seconds) { cache().forget(idle_seconds); }

}  // namespace sepwise
