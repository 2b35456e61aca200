// lies: between an engine and its daemon something cuts, truncates, delays, flips and lies.
//
// Goal: whatever comes over the wire, the engine's tokens and logits are those of the cold run, it
// waits for no deadline but its own, counts what it computed again and says once that it goes on
// without the cache; and nothing wrong is stored, and nothing of the attacked session stays held.
//
// Method: a real daemon behind real sockets, in this process. A case is a way to the bytes (mapped
// from host memory or from disk, streamed, over the bulk port), a line (gRPC, attach socket, bulk
// port) and a harm, done to message 0, 1, 2, ... until a run passes whole; or a way and a method,
// whose answers are told wrong in every field, one lie after another. Numbers beyond those cases
// choose one at random, its message or lie, and the bits.
//
// Fault contract: what is told is wrong or damaged somewhere, but nobody forges: bytes that are
// wrong under checksums made for them are for `cairn-engine verify` to find.
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "tests/lies/lying_daemon.h"
#include "tests/lies/proxies.h"
#include "tests/lies/world.h"

namespace cairn::lies {
namespace {

using faults::Counts;
using faults::Expect;

constexpr unsigned kRunSecondsMax = 60;  // a run that hangs ends the case
constexpr int kUnharmedTries = 5;        // a busy machine may be late without being harmed

enum class Way : uint8_t { kMapped, kMappedDisk, kStream, kBulk };
enum class Line : uint8_t { kGrpc, kAttach, kBulkPort, kLie };

struct Case {
  Way way = Way::kMapped;
  Line line = Line::kGrpc;
  Harm harm = Harm::kCut;
  const char* method = "";  // for kLie
};

std::vector<Case> AllCases() {
  std::vector<Case> cases;
  for (const auto& [way, line] :
       {std::pair(Way::kMapped, Line::kGrpc), std::pair(Way::kMapped, Line::kAttach),
        std::pair(Way::kMappedDisk, Line::kGrpc), std::pair(Way::kStream, Line::kGrpc),
        std::pair(Way::kBulk, Line::kGrpc), std::pair(Way::kBulk, Line::kBulkPort)}) {
    for (const Harm harm : kHarms) cases.push_back({way, line, harm});
  }
  for (const auto& [way, method] :
       {std::pair(Way::kMapped, "Session"), std::pair(Way::kMapped, "Match"),
        std::pair(Way::kMapped, "Reserve"), std::pair(Way::kMapped, "Commit"),
        std::pair(Way::kMappedDisk, "Match"), std::pair(Way::kMappedDisk, "Fetch"),
        std::pair(Way::kStream, "Session"), std::pair(Way::kStream, "FetchStream"),
        std::pair(Way::kStream, "CommitStream"), std::pair(Way::kBulk, "Session"),
        std::pair(Way::kBulk, "FetchBulk")}) {
    cases.push_back({way, Line::kLie, Harm::kCut, method});
  }
  return cases;
}

std::string NameOf(const Case& c) {
  constexpr const char* kWays[] = {"mapped", "mapped from disk", "stream", "bulk"};
  constexpr const char* kLines[] = {"gRPC", "attach", "bulk port"};
  const std::string way = kWays[static_cast<size_t>(c.way)];
  if (c.line == Line::kLie) return absl::StrCat(way, ", ", c.method);
  return absl::StrCat(way, ", ", kLines[static_cast<size_t>(c.line)], ", ", HarmName(c.harm));
}

bool OnThisHost(Way way) { return way == Way::kMapped || way == Way::kMappedDisk; }

cache::RemoteCacheOptions OptionsFor(const Case& c) {
  cache::RemoteCacheOptions options;
  options.connect_timeout = absl::Milliseconds(500);
  options.call_timeout = absl::Milliseconds(100);
  options.stall_timeout = absl::Milliseconds(200);
  options.commit_timeout = absl::Seconds(2);
  options.bulk = c.way == Way::kBulk;
  // Where gRPC is attacked, matches go that way too.
  options.lookups = c.line == Line::kAttach;
  return options;
}

// One harm in one run.
struct Run {
  bool harmed = false;
  bool hit = false;
  std::string what;
};

class Attacker {
 public:
  Attacker(const Subject& subject, const Case& c, Counts& counts)
      : case_(c), counts_(counts), world_(subject, c.way == Way::kMappedDisk) {}

  Run Harm(uint64_t index, uint64_t random) {
    ::alarm(kRunSecondsMax);
    world_.Reset();
    const Run run = case_.line == Line::kLie ? TellLie(index) : HarmMessage(index, random);
    ++counts_[run.harmed ? "harmed_runs" : "unharmed_runs"];
    world_.CheckHonest(counts_);
    return run;
  }

 private:
  Run HarmMessage(uint64_t index, uint64_t random) {
    const cache::TestFolder folder;
    Saboteur saboteur(case_.harm, index, random);
    Saboteur idle(lies::Harm::kCut, UINT64_MAX, 0);
    const auto release = [&] { saboteur.Release(); };
    const auto port = [](int number) { return static_cast<uint16_t>(number); };
    Run run;
    if (case_.line == Line::kAttach) {
      Link(world_.socket(), folder / "cairn.sock");
      const AttachProxy attach(folder / "cairn.sock.fd", world_.socket() + ".fd", saboteur);
      run.hit = Attack("unix:" + folder / "cairn.sock", release);
    } else if (OnThisHost(case_.way)) {
      Link(world_.socket() + ".fd", folder / "cairn.sock.fd");
      const StreamProxy grpc({.path = folder / "cairn.sock"}, {.path = world_.socket()},
                             Wire::kHttp2, saboteur);
      run.hit = Attack("unix:" + folder / "cairn.sock", release);
    } else if (case_.line == Line::kGrpc) {
      const StreamProxy grpc({.host = "127.0.0.1"},
                             {.host = "127.0.0.1", .port = port(world_.tcp_port())}, Wire::kHttp2,
                             saboteur);
      run.hit = Attack(absl::StrCat("127.0.0.1:", grpc.port()), release);
    } else {
      // The client takes the bulk port to be of the address that it reached the daemon by. The port
      // is the daemon's own, so the address must be one at which no other process has it.
      const std::string host = absl::StrCat("127.1.", ::getpid() >> 8 & 255, ".", ::getpid() & 255);
      const StreamProxy bulk({.host = host, .port = port(world_.bulk_port())},
                             {.host = "127.0.0.1", .port = port(world_.bulk_port())}, Wire::kBulk,
                             saboteur);
      const StreamProxy grpc({.host = host}, {.host = "127.0.0.1", .port = port(world_.tcp_port())},
                             Wire::kHttp2, idle);
      run.hit = Attack(absl::StrCat(host, ":", grpc.port()), release);
    }
    run.harmed = saboteur.fired();
    run.what = absl::StrCat("message ", index);
    return run;
  }

  Run TellLie(uint64_t index) {
    const cache::TestFolder folder;
    Liar liar(case_.method, index);
    Run run;
    if (OnThisHost(case_.way)) {
      Link(world_.socket() + ".fd", folder / "cairn.sock.fd");
      const std::string target = "unix:" + folder / "cairn.sock";
      const LyingDaemon daemon(target, "unix:" + world_.socket(), liar);
      run.hit = Attack(target, [] {});
    } else {
      const LyingDaemon daemon("127.0.0.1:0", absl::StrCat("127.0.0.1:", world_.tcp_port()), liar);
      run.hit = Attack(absl::StrCat("127.0.0.1:", daemon.port()), [] {});
    }
    run.what = liar.told();
    run.harmed = !run.what.empty();
    return run;
  }

  bool Attack(const std::string& target, const std::function<void()>& release) {
    return world_.Attack(target, OptionsFor(case_), release, counts_);
  }
  static void Link(const std::string& to, const std::string& at) {
    std::filesystem::create_symlink(to, at);
  }

  const Case case_;
  Counts& counts_;
  World world_;
};

// Every `stride`-th message or lie, from a first one that the number decides.
void RunAll(const Subject& subject, const Case& c, uint64_t seed, uint64_t stride, bool verbose,
            Counts& counts) {
  Attacker attacker(subject, c, counts);
  for (uint64_t index = seed % stride;; index += stride) {
    const Run run = attacker.Harm(index, seed * 1'000'003 + index);
    if (verbose) {
      std::fprintf(stderr, "%s, %s: %s\n", NameOf(c).c_str(),
                   run.harmed ? run.what.c_str() : "unharmed", run.hit ? "hit" : "miss");
    }
    if (!run.harmed) break;
  }
  // Without harm it must be a hit, or all of this proves nothing.
  for (int i = 0; i < kUnharmedTries; ++i) {
    if (attacker.Harm(UINT64_MAX, 0).hit) return;
  }
  faults::Fail("without harm there is no hit: " + NameOf(c));
}

void RunOneAtRandom(const Subject& subject, const std::vector<Case>& cases, uint64_t seed,
                    Counts& counts) {
  SeededRandom random(seed);
  Attacker attacker(subject, cases[random.Next() % cases.size()], counts);
  attacker.Harm(random.Next() % 100, random.Next());
}

int Main(int argc, char** argv) {
  const std::vector<Case> cases = AllCases();
  faults::Campaign campaign("lies", cases.size());
  uint64_t stride = 11;  // all of them take minutes
  campaign.app()
      .add_option("--stride", stride, "of the messages and lies only every so many-th")
      ->check(CLI::PositiveNumber);
  spdlog::set_level(spdlog::level::off);
  const Subject subject = Subject::Make();
  return campaign.Run(argc, argv, [&](uint64_t seed, Counts& counts) {
    if (seed <= cases.size()) {
      RunAll(subject, cases[seed - 1], seed, stride, campaign.verbose(), counts);
    } else {
      RunOneAtRandom(subject, cases, seed, counts);
    }
  });
}

}  // namespace
}  // namespace cairn::lies

int main(int argc, char** argv) { return cairn::lies::Main(argc, argv); }
