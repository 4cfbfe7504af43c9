/* A parallel loop for work of a few microseconds.

   Helper threads poll a counter for some 50 microseconds, then they sleep. Nobody waits for a sleeping
   helper: each iteration belongs to the thread that takes it first, and the caller takes iterations too. If
   a helper loses its core in the middle of an iteration, another program needs that core, so the next loops
   run without helpers. */

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>

#define POLLS 2000  /* a helper's polls before it sleeps */
#define YIELD_EVERY 32 /* polls between two offers of its core to others */
#define TOO_LONG (20 * POLLS)
#define ALONE 1000 /* loops that run without helpers after a wait that was too long */

typedef void (*Task)(const void *what, int index);

static pthread_mutex_t one_loop_at_a_time = PTHREAD_MUTEX_INITIALIZER, sleep_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake_up = PTHREAD_COND_INITIALIZER;
static atomic_int left, done, asleep, helpers;
static Task loop_task; /* only threads that have taken an iteration read these two */
static const void *loop_what;
static int alone; /* loops that the caller still runs without helpers */

static inline void pause_core(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static void take_tasks(void) {
  for (int turn; (turn = atomic_fetch_sub(&left, 1) - 1) >= 0; atomic_fetch_add(&done, 1)) loop_task(loop_what, turn);
}

static void *help(void *nothing) {
  for (;;) {
    for (int poll = 1; poll < POLLS && atomic_load_explicit(&left, memory_order_relaxed) <= 0; poll++)
      if (poll % YIELD_EVERY) pause_core();
      else sched_yield(); /* lets other programs have this core first */
    if (atomic_load(&left) <= 0) {
      pthread_mutex_lock(&sleep_lock);
      atomic_fetch_add(&asleep, 1);
      while (atomic_load(&left) <= 0) pthread_cond_wait(&wake_up, &sleep_lock);
      atomic_fetch_sub(&asleep, 1);
      pthread_mutex_unlock(&sleep_lock);
    }
    take_tasks();
  }
  return nothing;
}

/* task(what, i) for all i in 0 .. count - 1, in any order and by several threads. */
static void share(Task task, const void *what, int count) {
  int shared = count > 1 && atomic_load(&helpers) > 0 && pthread_mutex_trylock(&one_loop_at_a_time) == 0;
  if (shared && alone > 0) {
    alone--;
    pthread_mutex_unlock(&one_loop_at_a_time);
    shared = 0;
  }
  if (!shared) {
    for (int i = 0; i < count; i++) task(what, i);
    return;
  }
  loop_task = task;
  loop_what = what;
  atomic_store(&done, 0);
  atomic_store(&left, count);
  if (atomic_load(&asleep)) {
    pthread_mutex_lock(&sleep_lock);
    pthread_cond_broadcast(&wake_up);
    pthread_mutex_unlock(&sleep_lock);
  }
  take_tasks();
  int poll = 1;
  for (; atomic_load(&done) < count; poll++)
    if (poll % POLLS) pause_core();
    else sched_yield(); /* the helper may have lost its core */
  if (poll > TOO_LONG) alone = ALONE; /* the cores are wanted elsewhere */
  pthread_mutex_unlock(&one_loop_at_a_time);
}

/* Have so many threads in all, the caller's own counted; there are never fewer than before. */
void tandem_set_threads(int wanted) {
  pthread_t thread;
  pthread_mutex_lock(&one_loop_at_a_time);
  while (atomic_load(&helpers) < wanted - 1 && pthread_create(&thread, NULL, help, NULL) == 0) {
    pthread_detach(thread);
    atomic_fetch_add(&helpers, 1);
  }
  pthread_mutex_unlock(&one_loop_at_a_time);
}
