// world.h: a daemon in this process, behind its real sockets, and what its engines are asked.
//
// The daemon holds the first block of the prompt; the second is not there, so that a run reads and
// writes: it matches, leases or fetches, reserves, commits, releases.
//
// Threads: one. Errors: checks that end the process.
#ifndef CAIRN_TESTS_LIES_WORLD_H_
#define CAIRN_TESTS_LIES_WORLD_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cache/client/remote_cache.h"
#include "cache/service/service_rig.h"
#include "engine/cairn_engine/run_sequence.h"
#include "engine/forward/model.h"
#include "tests/faults/campaign.h"

namespace cairn::lies {

// Made once, before there are any threads.
struct Subject {
  std::unique_ptr<engine::Model> model;
  std::vector<int32_t> prompt;
  engine::SequenceResult cold;
  cache::NamespaceSpec spec;
  engine::SequenceOptions sequence = {.chunk = 130, .new_tokens = 3};

  static Subject Make();
};

class World {
 public:
  World(const Subject& subject, bool from_disk);

  // As it was in the beginning: nobody else's session is open, of the prompt only the first block
  // is there, and it lies where it should.
  void Reset();

  // A prompt through an engine whose cache misbehaves: twice, with `release` in between, which lets
  // go what was held up. What must hold is checked, and what happened is counted. True: hits.
  bool Attack(const std::string& target, const cache::RemoteCacheOptions& options,
              const std::function<void()>& release, faults::Counts& counts);
  // And afterwards through an honest one: nothing wrong was stored.
  void CheckHonest(faults::Counts& counts);

  const cache::TestFolder& folder() const { return folder_; }
  int tcp_port() const { return server_->tcp_port(); }
  int bulk_port() const { return server_->bulk_port(); }
  std::string socket() const { return folder_ / "cairn.sock"; }

 private:
  void AwaitQuiet();
  // A daemon anew, over the same store but for the second block.
  void Restart();

  const Subject& subject_;
  const bool from_disk_;
  cache::TestFolder folder_;
  std::unique_ptr<cache::CoreRig> rig_;
  std::unique_ptr<cache::CacheServer> server_;
};

}  // namespace cairn::lies

#endif  // CAIRN_TESTS_LIES_WORLD_H_
