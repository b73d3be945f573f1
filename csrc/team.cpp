#include "team.h"

#include <atomic>
#include <exception>
#include <thread>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace sepwise {
namespace {

// `crowded`: there are more threads than cores, and another one may need this core.
void rest(int64_t times_before, bool crowded) {
  if (crowded || times_before > 4000) return std::this_thread::yield();
#if defined(__x86_64__)
  _mm_pause();
#endif
}

// The leader opens a turn for each call of `parallel`, and closes it. Who has counted itself among the busy ones while
// the turn was open may touch its jobs; the leader waits for them before it goes on.
class Team {
 public:
  explicit Team(const Host& host)
      : host_(host), crowded_(host.threads > static_cast<int64_t>(std::thread::hardware_concurrency())) {}

  void lead(void (*work)(void*, const Host&), void* context) {
    Team* const before = led_;
    led_ = this;
    try {
      work(context, Host{parallel, host_.threads, host_.scratch});
    } catch (...) {
      keep_error();
    }
    led_ = before;
    turn_.store(ended);
  }

  void follow() {
    for (uint64_t done = 0;;) {
      uint64_t turn = turn_.load();
      for (int64_t times = 0; turn % 2 == 0 || turn == done; turn = turn_.load()) rest(times++, crowded_);
      if (turn == ended) return;
      busy_.fetch_add(1);
      if (turn_.load() == turn) take();
      busy_.fetch_sub(1);
      done = turn;
    }
  }

  void throw_error() {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  static constexpr uint64_t ended = ~uint64_t(0);  // odd

  static void parallel(int64_t jobs, void (*job)(void*, int64_t), void* context) {
    if (jobs == 1) return job(context, 0);
    Team& team = *led_;
    team.job_ = job, team.context_ = context, team.jobs_ = jobs;
    team.next_.store(0);
    team.turn_.fetch_add(1);
    team.take();
    team.turn_.fetch_add(1);
    for (int64_t times = 0; team.busy_.load() > 0;) rest(times++, team.crowded_);
    team.throw_error();
  }

  // Jobs of this turn, until none is left.
  void take() {
    try {
      for (int64_t index = next_.fetch_add(1); index < jobs_; index = next_.fetch_add(1)) job_(context_, index);
    } catch (...) {
      keep_error();
    }
  }

  void keep_error() {
    if (!failed_.exchange(true)) error_ = std::current_exception();
  }

  static thread_local Team* led_;  // by this thread
  const Host& host_;
  const bool crowded_;
  void (*job_)(void*, int64_t) = nullptr;
  void* context_ = nullptr;
  int64_t jobs_ = 0;
  std::exception_ptr error_;
  std::atomic<bool> failed_{false};
  alignas(64) std::atomic<uint64_t> turn_{0};  // odd: open
  alignas(64) std::atomic<int64_t> next_{0};
  alignas(64) std::atomic<int64_t> busy_{0};
};

thread_local Team* Team::led_ = nullptr;

struct Meeting {
  Team team;
  void (*work)(void*, const Host&);
  void* context;
};

// Where PyTorch runs all jobs on one thread, the first one ends before the others begin.
void meet(void* context, int64_t index) {
  Meeting& meeting = *static_cast<Meeting*>(context);
  if (index == 0)
    meeting.team.lead(meeting.work, meeting.context);
  else
    meeting.team.follow();
}

}  // namespace

void with_team(const Host& host, void (*work)(void* context, const Host& team), void* context) {
  if (host.threads == 1) return work(context, host);
  Meeting meeting{Team(host), work, context};
  host.parallel(host.threads, meet, &meeting);
  meeting.team.throw_error();
}

}  // namespace sepwise
