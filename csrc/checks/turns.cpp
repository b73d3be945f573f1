// Teams give every job exactly once, wait for all of them, and pass errors on: team TURNS.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "../team.h"

using sepwise::Host;

namespace {

constexpr int64_t most = 5;
std::atomic<int64_t> wrong = 0, all_turns = 0;

void expect(bool holds, const char* what) {
  if (holds) return;
  wrong++;
  std::printf("%s\n", what);
}

// LATE: the others come one millisecond after each other, when all is over, or nearly.
template <bool LATE>
void in_threads(int64_t jobs, void (*job)(void*, int64_t), void* context) {
  std::vector<std::thread> others;
  for (int64_t i = 1; i < jobs; i++)
    others.emplace_back([=] {
      if (LATE) std::this_thread::sleep_for(std::chrono::milliseconds(i));
      job(context, i);
    });
  job(context, 0);
  for (std::thread& other : others) other.join();
}

// As PyTorch within a parallel region.
void in_order(int64_t jobs, void (*job)(void*, int64_t), void* context) {
  for (int64_t i = 0; i < jobs; i++) job(context, i);
}

struct Turn {
  int64_t times[most] = {}, jobs, fails_at;
};

void count(void* context, int64_t index) {
  Turn& turn = *static_cast<Turn*>(context);
  turn.times[index]++;
  if (index == turn.fails_at) throw std::runtime_error("job " + std::to_string(index));
}

struct Work {
  int64_t turns, fails_at_turn = -1, fails_at_job = -1, done = 0;
};

void work(void* context, const Host& team) {
  Work& work = *static_cast<Work*>(context);
  for (int64_t t = 0; t < work.turns; t++, work.done++, all_turns++) {
    Turn turn{{}, 1 + t % most, t == work.fails_at_turn ? work.fails_at_job : -1};
    team.parallel(turn.jobs, count, &turn);
    for (int64_t i = 0; i < most; i++) expect(turn.times[i] == (i < turn.jobs), "a job was not done once");
  }
}

std::string said(const Host& host, Work& asked) {
  try {
    sepwise::with_team(host, work, &asked);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

void check(void (*parallel)(int64_t, void (*)(void*, int64_t), void*), int64_t threads, int64_t turns) {
  const Host host{parallel, threads, nullptr};
  Work asked{turns};
  expect(said(host, asked).empty() && asked.done == turns, "not all turns were done");
  for (int64_t job = 0; job < most; job++) {
    Work failing{turns, 10 * most - 1, job};  // in a turn of five jobs
    expect(said(host, failing) == "job " + std::to_string(job), "an error was lost");
    expect(failing.done == 10 * most - 1, "the work went on after an error");
  }
}

// A job that has a team of its own.
void lead_again(void*, int64_t) {
  Work inner{7};
  expect(said(Host{in_order, 2, nullptr}, inner).empty() && inner.done == 7, "a team in a team went wrong");
}

void work_with_teams(void*, const Host& team) {
  for (int64_t t = 0; t < 20; t++) team.parallel(3, lead_again, nullptr);
}

}  // namespace

int main(int, char** arguments) {
  const int64_t turns = std::max<int64_t>(std::atoll(arguments[1]), 10 * most);
  for (int64_t threads : {2, 3, 8}) check(in_threads<false>, threads, turns);
  for (int64_t threads : {1, 3}) check(in_order, threads, turns);
  check(in_threads<true>, 4, 100);
  sepwise::with_team(Host{in_threads<false>, 3, nullptr}, work_with_teams, nullptr);
  const long long turned = all_turns, found = wrong;
  std::printf("teams: %lld turns, %lld wrong\n", turned, found);
  return wrong > 0;
}
