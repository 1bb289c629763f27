import ArgumentParser

/// The command line: one type a subcommand, in `Commands`.
struct Letterlock: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "letterlock",
        abstract: "An environment's secrets as files: mounted, sealed on disk, rotatable.",
        discussion: """
            A STORE is the directory a keyring lives in; a MOUNTPOINT is where its secrets are files.

            Exit codes: 0 done, 1 failed, 2 usage, 3 wrong passphrase, 4 locked or key service out of reach, \
            5 integrity violation, 6 busy.
            """,
        version: "letterlock \(Program.version)",
        subcommands: [
            Init.self, Mount.self, Umount.self, Status.self, Rotate.self, Rewrap.self, Reencrypt.self, Revoke.self,
            Key.self, PolicyCommand.self, HooksCommand.self, Audit.self, Readers.self, Metrics.self, Lock.self,
            Unlock.self,
            UnlockWith.self, Verify.self,
            Backup.self, Restore.self, Run.self, Import.self, Export.self, Upgrade.self,
            Completions.self, Serve.self, Detach.self, RunHook.self,
        ])
}
