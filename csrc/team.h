// Threads that stay together while a program runs: its jobs are so short that to gather the threads for each of them,
// as PyTorch does, takes a good part of the time. Between jobs they look for the next one without pause. Plain C++.
#pragma once

#include "separable_conv2d/kernel.h"

namespace sepwise {

// Calls work(context, team) on this thread, while up to `host.threads` - 1 others wait for jobs that are given by way
// of `team`. `host` runs job 0 on the calling thread, before any other job there; a team does not. Throws what `work` or
// a job throws. A thread that the machine does not let run is waited for while it has a job, and at the end; other jobs
// are taken by others.
void with_team(const Host& host, void (*work)(void* context, const Host& team), void* context);

}  // namespace sepwise
