/* A loop whose turns several cores take, for loops of a few microseconds.

   Helpers wait for work by looking at a counter for some 50 microseconds, then they sleep. Nobody waits
   for a sleeper: a turn belongs to whoever takes it first, and the caller takes turns itself. Where a helper
   lost its core in the middle of a turn, other work is running: the next loops do without help. */

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>

#define LOOKS 2000  /* of a helper before it sleeps */
#define COURTESY 32 /* after so many it offers its core to others */
#define TOO_LONG (20 * LOOKS)
#define ALONE 1000 /* loops without help after a wait that was too long */

typedef void (*Turn)(const void *what, int turn);

static pthread_mutex_t one_loop_at_a_time = PTHREAD_MUTEX_INITIALIZER, door = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t knock = PTHREAD_COND_INITIALIZER;
static atomic_int left, done, asleep, helpers;
static Turn loop_turn; /* these two are read only by who has a turn of the loop */
static const void *loop_what;
static int alone; /* loops still to be gone through without help; of the caller */

static inline void a_moment(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static void take_turns(void) {
  for (int turn; (turn = atomic_fetch_sub(&left, 1) - 1) >= 0; atomic_fetch_add(&done, 1)) loop_turn(loop_what, turn);
}

static void *help(void *nothing) {
  for (;;) {
    for (int look = 1; look < LOOKS && atomic_load_explicit(&left, memory_order_relaxed) <= 0; look++)
      if (look % COURTESY) a_moment();
      else sched_yield(); /* who else wants this core goes first */
    if (atomic_load(&left) <= 0) {
      pthread_mutex_lock(&door);
      atomic_fetch_add(&asleep, 1);
      while (atomic_load(&left) <= 0) pthread_cond_wait(&knock, &door);
      atomic_fetch_sub(&asleep, 1);
      pthread_mutex_unlock(&door);
    }
    take_turns();
  }
  return nothing;
}

/* turn(what, i) for all i in 0 .. turns - 1, in any order and by several threads. */
static void share(Turn turn, const void *what, int turns) {
  int shared = turns > 1 && atomic_load(&helpers) > 0 && pthread_mutex_trylock(&one_loop_at_a_time) == 0;
  if (shared && alone > 0) {
    alone--;
    pthread_mutex_unlock(&one_loop_at_a_time);
    shared = 0;
  }
  if (!shared) {
    for (int i = 0; i < turns; i++) turn(what, i);
    return;
  }
  loop_turn = turn;
  loop_what = what;
  atomic_store(&done, 0);
  atomic_store(&left, turns);
  if (atomic_load(&asleep)) {
    pthread_mutex_lock(&door);
    pthread_cond_broadcast(&knock);
    pthread_mutex_unlock(&door);
  }
  take_turns();
  int look = 1;
  for (; atomic_load(&done) < turns; look++)
    if (look % LOOKS) a_moment();
    else sched_yield(); /* the helper may have lost its core */
  if (look > TOO_LONG) alone = ALONE; /* the cores are wanted elsewhere */
  pthread_mutex_unlock(&one_loop_at_a_time);
}

/* Have so many threads in all, the caller's own counted; there are never fewer than before. */
void narrow_threads(int wanted) {
  pthread_t thread;
  pthread_mutex_lock(&one_loop_at_a_time);
  while (atomic_load(&helpers) < wanted - 1 && pthread_create(&thread, NULL, help, NULL) == 0) {
    pthread_detach(thread);
    atomic_fetch_add(&helpers, 1);
  }
  pthread_mutex_unlock(&one_loop_at_a_time);
}
