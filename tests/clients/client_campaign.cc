// client_campaign: sets clients upon a real cairnd that die, stand still, or ask for more than it
// can give, and looks what it holds for them and what others notice. Progress and trouble on
// stderr; the last line on stdout is JSON with the counts, for tools/verify.sh and
// tests/campaign.sh.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"
#include "store/base/exit_codes.h"
#include "tests/clients/attack.h"
#include "tests/clients/roles.h"

namespace cairn::clients {
namespace {

struct NamedAttack {
  const char* name;
  absl::StatusOr<AttackResult> (*run)(const AttackFlags&);
};
constexpr NamedAttack kAttacks[] = {
    {"killed-clients", KillClients}, {"stuck-readers", StickReaders}, {"overload", Overload}};

int RunAttack(const NamedAttack& attack, AttackFlags flags) {
  const bool own_folder = flags.work.empty();
  if (own_folder) flags.work = absl::StrCat("/tmp/cairn-clients-", ::getpid());
  const absl::StatusOr<AttackResult> result = attack.run(flags);
  nlohmann::json line = {
      {"attack", attack.name},
      {"seed", flags.seed},
      {"trials", result.ok() ? result->trials : 0},
      {"failed", result.ok() ? 0 : 1},
      {"counts", result.ok() ? nlohmann::json(result->counts) : nlohmann::json::object()},
      {"result", result.ok() ? "pass" : "fail"}};
  if (!result.ok()) {
    std::fprintf(stderr, "%s: %s\nseed %llu; see %s\n", attack.name,
                 result.status().ToString().c_str(), static_cast<unsigned long long>(flags.seed),
                 flags.work.c_str());
  } else if (own_folder) {
    std::error_code ignored;
    std::filesystem::remove_all(flags.work, ignored);
  }
  std::printf("%s\n", line.dump().c_str());
  return result.ok() ? kExitOk : kExitFailure;
}

int Main(int argc, char** argv) {
  CLI::App app("Clients that die, stand still or ask for too much, before a real cairnd.");
  AttackFlags flags;
  ClientFlags client;
  app.add_option("--daemon", flags.daemon, "the cairnd to attack")->check(CLI::ExistingFile);
  app.add_option("--attack", flags.attack, "killed-clients, stuck-readers or overload");
  app.add_option("--seed", flags.seed, "decides what clients do and where they end");
  app.add_option("--trials", flags.trials, "how many; 0: a small number");
  app.add_option("--seconds", flags.seconds, "as many as that gives instead");
  app.add_option("--clients", flags.clients, "killed-clients: at once")->check(CLI::Range(1, 256));
  app.add_option("--work", flags.work, "a folder for the daemon, kept; default: one in /tmp");
  // Of a client that the campaign starts.
  app.add_option("--role", client.role)->group("");
  app.add_option("--socket", client.socket)->group("");
  app.add_option("--tcp", client.tcp)->group("");
  CLI11_PARSE(app, argc, argv);

  if (!client.role.empty()) {
    client.seed = flags.seed;
    const absl::Status status = RunRole(client);
    if (status.ok()) return kExitOk;
    std::fprintf(stderr, "client %s: %s\n", client.role.c_str(), status.ToString().c_str());
    return kExitFailure;
  }
  for (const NamedAttack& attack : kAttacks) {
    if (flags.attack == attack.name && !flags.daemon.empty()) return RunAttack(attack, flags);
  }
  std::fprintf(stderr, "--daemon and --attack (killed-clients, stuck-readers or overload)\n");
  return kExitUsage;
}

}  // namespace
}  // namespace cairn::clients

int main(int argc, char** argv) { return cairn::clients::Main(argc, argv); }
