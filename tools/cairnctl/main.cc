// cairnctl: what an operator sees and does to a running cairnd, over its admin socket.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "cache/client/default_paths.h"
#include "store/base/bytes_text.h"
#include "store/base/clock.h"
#include "store/base/digest.h"
#include "store/base/exit_codes.h"
#include "store/base/limits.h"
#include "tools/cairnctl/admin_client.h"
#include "tools/cairnctl/output.h"

namespace cairn::ctl {
namespace {

struct Flags {
  std::string socket = cache::DefaultAdminSocket();
  bool json = false;
  double timeout_seconds = 10;
  std::string prefix;
  std::string namespace_root;
  std::string older_than;
  bool all = false;
  bool yes = false;
  bool leaves = false;
  uint32_t limit = 1000;
  std::string digest;
  std::string rate;
  double flush_seconds = 60;
};

int Fail(const absl::Status& status) {
  const std::string message(status.message());
  std::fprintf(stderr, "cairnctl: %s\n", message.c_str());
  if (absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status)) return kExitUnreachable;
  if (absl::IsNotFound(status)) return kExitNotFound;
  return absl::IsInvalidArgument(status) ? kExitUsage : kExitFailure;
}

void PrintJson(const nlohmann::json& json) { std::printf("%s\n", json.dump(2).c_str()); }

absl::Status FillFilter(const Flags& flags, v1::Filter* filter) {
  if (!flags.prefix.empty()) {
    CAIRN_ASSIGN_OR_RETURN(*filter->mutable_prefix(), ParseDigestPrefix(flags.prefix));
  }
  if (!flags.namespace_root.empty()) {
    CAIRN_ASSIGN_OR_RETURN(*filter->mutable_namespace_root(),
                           ParseDigestPrefix(flags.namespace_root));
    if (filter->namespace_root().size() != Digest::kBytes) {
      return absl::InvalidArgumentError(
          "--namespace needs all 64 hexadecimal digits (cairnctl ls --json shows them)");
    }
  }
  if (!flags.older_than.empty()) {
    absl::Duration age;
    if (!absl::ParseDuration(flags.older_than, &age) || age < absl::ZeroDuration()) {
      return absl::InvalidArgumentError(absl::StrCat("--older-than '", flags.older_than,
                                                     "' is no duration such as 90s, 30m or 24h"));
    }
    filter->set_unused_for_seconds(static_cast<uint64_t>(absl::ToInt64Seconds(age)));
  }
  return absl::OkStatus();
}

int RunVersion(AdminClient& client, const Flags& flags) {
  const auto version = client.Version();
  if (!version.ok()) return Fail(version.status());
  if (flags.json) {
    PrintJson({{"daemon_version", version->daemon_version()},
               {"protocol_version", version->protocol_version()},
               {"layout_version", version->layout_version()},
               {"uptime_seconds", version->uptime_seconds()}});
  } else {
    std::printf("cairnd %s, protocol %u, layout %u, up %s\n", version->daemon_version().c_str(),
                version->protocol_version(), version->layout_version(),
                HumanAge(static_cast<int64_t>(version->uptime_seconds())).c_str());
  }
  return kExitOk;
}

int RunStats(AdminClient& client, const Flags& flags) {
  const auto stats = client.Stats();
  if (!stats.ok()) return Fail(stats.status());
  if (flags.json) {
    PrintJson(StatsJson(*stats));
  } else {
    std::printf("%s", StatsText(*stats).c_str());
  }
  return kExitOk;
}

int RunList(AdminClient& client, const Flags& flags) {
  v1::ListRequest request;
  if (const absl::Status status = FillFilter(flags, request.mutable_filter()); !status.ok())
    return Fail(status);
  request.set_leaves_only(flags.leaves);
  request.set_limit(flags.limit);
  const auto list = client.List(request);
  if (!list.ok()) return Fail(list.status());
  if (flags.json) {
    PrintJson(ListJson(*list));
  } else {
    std::printf("%s", ListText(*list, RealClock().WallMicros()).c_str());
  }
  return kExitOk;
}

int RunEvict(AdminClient& client, const Flags& flags) {
  v1::EvictRequest request;
  if (const absl::Status status = FillFilter(flags, request.mutable_filter()); !status.ok())
    return Fail(status);
  const bool filtered =
      !flags.prefix.empty() || !flags.namespace_root.empty() || !flags.older_than.empty();
  if (filtered == flags.all || (flags.all && !flags.yes)) {
    return Fail(absl::InvalidArgumentError(
        "say what to evict: --prefix, --namespace and --older-than together, or --all with --yes"));
  }
  request.set_all(flags.all);
  const auto evicted = client.Evict(request);
  if (!evicted.ok()) return Fail(evicted.status());
  if (flags.json) {
    PrintJson({{"evicted_entries", evicted->evicted_entries()},
               {"kept_entries", evicted->kept_entries()}});
  } else {
    std::printf("evicted %llu entries; %llu are leased, pinned or being made and stay\n",
                static_cast<unsigned long long>(evicted->evicted_entries()),
                static_cast<unsigned long long>(evicted->kept_entries()));
  }
  return evicted->evicted_entries() + evicted->kept_entries() == 0 ? kExitNotFound : kExitOk;
}

int RunPin(AdminClient& client, const Flags& flags, bool pin) {
  const auto digest = ParseDigestPrefix(flags.digest);
  if (!digest.ok()) return Fail(digest.status());
  const auto pinned = client.Pin(*digest, pin);
  if (!pinned.ok()) return Fail(pinned.status());
  if (flags.json) {
    PrintJson({{"digest", HexOf(pinned->digest())}, {"pinned", pin}});
  } else {
    std::printf("%s the prefix that ends at %s\n", pin ? "pinned" : "unpinned",
                HexOf(pinned->digest()).c_str());
  }
  return kExitOk;
}

int RunVerify(AdminClient& client, const Flags& flags) {
  v1::VerifyRequest request;
  if (const absl::Status status = FillFilter(flags, request.mutable_filter()); !status.ok())
    return Fail(status);
  if (!flags.rate.empty()) {
    const absl::StatusOr<uint64_t> rate = ParseByteRate(flags.rate);
    if (!rate.ok()) return Fail(rate.status());
    request.set_bytes_per_second(*rate);
  }
  // On a terminal one line that is written again, else a line each.
  const char* const end = ::isatty(STDERR_FILENO) == 1 ? "\x1b[K\r" : "\n";
  const auto report = client.Verify(request, [end](const v1::VerifyEvent& event) {
    std::fprintf(stderr, "%s%s", VerifyProgress(event).c_str(), end);
  });
  if (*end != '\n') std::fputs("\n", stderr);
  if (!report.ok()) return Fail(report.status());
  if (flags.json) {
    PrintJson(VerifyJson(*report));
  } else {
    std::printf("%s", VerifyText(*report).c_str());
  }
  if (report->damaged() > 0) return kExitDamageFound;
  return report->unreadable() == 0 ? kExitOk : kExitFailure;
}

int RunFlush(AdminClient& client, const Flags& flags) {
  if (const absl::Status status = client.Flush(absl::Seconds(flags.flush_seconds)); !status.ok())
    return Fail(status);
  if (flags.json) PrintJson({{"flushed", true}});
  return kExitOk;
}

void AddFilter(CLI::App* app, Flags& flags) {
  app->add_option("--prefix", flags.prefix,
                  "a block's digest (or its first digits): it and all that continue it");
  app->add_option("--namespace", flags.namespace_root, "a namespace's root");
  app->add_option("--older-than", flags.older_than, "not used for so long: 90s, 30m, 24h");
}

int Main(int argc, char** argv) {
  Flags flags;
  CLI::App app("cairnctl: look at and steer a running cairnd");
  app.require_subcommand(1);
  app.fallthrough();
  app.add_option("--socket", flags.socket, "the daemon's admin socket")->capture_default_str();
  app.add_flag("--json", flags.json, "JSON for programs");
  app.add_option("--timeout", flags.timeout_seconds, "seconds to wait for an answer")
      ->check(CLI::PositiveNumber);
  CLI::App* version = app.add_subcommand("version", "what runs there");
  CLI::App* stats =
      app.add_subcommand("stats", "all counters; the unit is the last word of a name");
  CLI::App* ls = app.add_subcommand("ls", "stored prefixes, a line a block, last used first");
  AddFilter(ls, flags);
  ls->add_flag("--leaves", flags.leaves, "only blocks that nothing continues");
  ls->add_option("--limit", flags.limit, "at most so many")->check(CLI::Range(1u, kListEntriesMax));
  CLI::App* evict = app.add_subcommand("evict", "drop entries from all tiers");
  AddFilter(evict, flags);
  evict->add_flag("--all", flags.all, "everything; needs --yes");
  evict->add_flag("--yes", flags.yes, "yes, everything");
  CLI::App* pin = app.add_subcommand(
      "pin", "keep a prefix: it and all before it are not evicted until unpinned or restarted");
  pin->add_option("digest", flags.digest, "the prefix's last block")->required();
  CLI::App* unpin = app.add_subcommand("unpin", "undo a pin");
  unpin->add_option("digest", flags.digest, "the prefix's last block")->required();
  CLI::App* verify = app.add_subcommand(
      "verify", "read everything stored and check it; damage is withdrawn and ends with status 5");
  AddFilter(verify, flags);
  verify->add_option("--rate", flags.rate, "at most so much a second, such as 100MB/s");
  CLI::App* flush = app.add_subcommand("flush", "wait until everything committed is on disk");
  flush->add_option("--seconds", flags.flush_seconds, "at most so long")
      ->check(CLI::Range(0.1, 600.0));
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitUsage;
  }
  AdminClient client(flags.socket, absl::Seconds(flags.timeout_seconds));
  if (*version) return RunVersion(client, flags);
  if (*stats) return RunStats(client, flags);
  if (*ls) return RunList(client, flags);
  if (*evict) return RunEvict(client, flags);
  if (*pin) return RunPin(client, flags, true);
  if (*unpin) return RunPin(client, flags, false);
  if (*flush) return RunFlush(client, flags);
  return RunVerify(client, flags);
}

}  // namespace
}  // namespace cairn::ctl

int main(int argc, char** argv) { return cairn::ctl::Main(argc, argv); }
