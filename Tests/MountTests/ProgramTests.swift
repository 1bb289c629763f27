import Glibc
import Testing

@Suite("Real programs on the mount")
struct ProgramTests {
    let mounted: Mounted
    var work: Workspace { mounted.workspace }

    init() throws { mounted = try Mounted() }

    @Test func gitCommitsClonesAndChecks() throws {
        try work.shell(
            """
            export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org
            export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
            cd '\(mounted.path)'
            git init -q -b main one && cd one
            for i in $(seq 1 20); do mkdir -p d$i; echo "line $i" >d$i/f; done
            git add . && git commit -q -m first
            git checkout -q -b side && echo changed >d3/f && git commit -q -a -m second
            git checkout -q main && echo other >d4/f && git commit -q -a -m third
            git merge -q -m merged side
            git gc -q --prune=now && git fsck --strict
            git clone -q --no-local . ../two && cd ../two
            [[ $(git rev-parse HEAD) == $(git -C ../one rev-parse HEAD) ]]
            [[ -z $(git status --porcelain) ]]
            git reset -q --hard HEAD~1 && git pull -q --ff-only && git fsck --strict
            """)
        try mounted.remount()
        try work.shell("cd '\(mounted.path)/two' && git -c safe.directory='*' fsck --strict")
    }

    @Test(arguments: ["wal", "delete"])
    func sqliteKeepsItsDatabase(journal: String) throws {
        let database = mounted("db")
        #expect(
            try work.done(["sqlite3", database, "PRAGMA journal_mode=\(journal); CREATE TABLE t(a, b);"]).line
                == journal)
        let writers = try (0..<2).map { writer in
            try work.start(
                ["sqlite3", database],
                input: ".timeout 30000\n" + (0..<40).map { "INSERT INTO t VALUES(\(writer), \($0));\n" }.joined())
        }
        for writer in writers {
            let outcome = try writer.wait()
            #expect(outcome.status == 0, "\(outcome.complaint)")
        }
        let check = "PRAGMA integrity_check; SELECT count(*), count(DISTINCT a * 1000 + b) FROM t;"
        #expect(try work.done(["sqlite3", database, check]).line == "ok\n80|80")
        try mounted.remount()
        #expect(try work.done(["sqlite3", database, check]).line == "ok\n80|80")
    }

    @Test func rsyncCopiesAllAndThenFindsNothingToDo() throws {
        try work.shell(
            """
            mkdir -p '\(work("tree"))'/{a/b/c,empty} && cd '\(work("tree"))'
            for i in $(seq 1 60); do head -c $((i * 997)) /dev/urandom >a/b/f$i; done
            ln -s b/f1 a/link; ln a/b/f2 a/b/c/hard; mkfifo a/pipe; chmod 4711 a/b/f3; chown 12:34 a/b/f4
            touch -d '2001-02-03 04:05:06.123456789' a/b/f5 a/b/c; setfattr -n user.k -v v a/b/f6
            """)
        let copy = ["rsync", "-aHX", "--itemize-changes", work("tree") + "/", mounted("copy") + "/"]
        #expect(try !work.done(copy).line.isEmpty)
        #expect(try work.done(copy).line == "")
        #expect(try work.done(copy + ["--checksum"]).line == "")
        try mounted.remount()
        #expect(try work.done(copy + ["--checksum"]).line == "")
        try work.done(["rsync", "-aHX", "--delete", mounted("copy") + "/", work("back") + "/"])
        #expect(try work.done(["rsync", "-aHXc", "--delete", "-i", work("tree") + "/", work("back") + "/"]).line == "")
    }

    @Test func tarPacksAndUnpacks() throws {
        try work.shell(
            """
            cd '\(mounted.path)' && mkdir -p in/d && for i in $(seq 1 40); do head -c $((i * 1500)) /dev/urandom >in/d/f$i; done
            truncate -s 3M in/sparse; echo end >>in/sparse; ln -s d in/l; ln in/d/f1 in/hard; chmod 2750 in/d
            tar --create --sparse --xattrs --file '\(work("t.tar"))' in
            mkdir out && tar --extract --xattrs --same-owner --preserve-permissions --file '\(work("t.tar"))' --directory out
            tar --compare --file '\(work("t.tar"))' --directory out
            diff -r in out/in
            tar --create . | tar --list | wc -l
            """)
        #expect(try attributes(mounted("out/in/d")).permissions == 0o2750)
        #expect(try attributes(mounted("out/in/hard")).st_nlink == 2)
        // The control directory is in no archive.
        let listed = try work.shell("tar --create --directory '\(mounted.path)' . | tar --list").text
        #expect(!listed.contains(".letterlock"))
    }

    @Test func editorsSave() throws {
        try put("first line\nsecond line\n", mounted("f"), mode: 0o640)
        try work.done(
            ["vim.tiny", "-es", "-u", "NONE", "-i", "NONE", "-c", "%s/second/edited/", "-c", "wq", mounted("f")],
            environment: ["TERM": "dumb"])
        #expect(try text(mounted("f")) == "first line\nedited line\n")
        #expect(try attributes(mounted("f")).permissions == 0o640)
        try work.done(
            [
                "vim.tiny", "-es", "-u", "NONE", "-i", "NONE", "--cmd", "set backup backupcopy=no writebackup", "-c",
                "1d", "-c", "wq", mounted("f"),
            ], environment: ["TERM": "dumb"])
        #expect(try text(mounted("f")) == "edited line\n")
        try work.done(["sed", "-i", "s/edited/last/", mounted("f")])
        #expect(try text(mounted("f")) == "last line\n")
        #expect(try attributes(mounted("f")).permissions == 0o640)
        try work.done(["sed", "-i.orig", "s/last/very last/", mounted("f")])
        #expect(try names(mounted.path).filter { $0.hasPrefix("f") && !$0.hasSuffix("~") } == ["f", "f.orig"])
    }

    @Test func sshKeygenMakesAndReadsItsKey() throws {
        try work.done(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "trial", "-f", mounted("id")])
        #expect(try attributes(mounted("id")).permissions == 0o600)
        let derived = try work.done(["ssh-keygen", "-y", "-f", mounted("id")]).line
        #expect(try text(mounted("id.pub")).hasPrefix(derived.split(separator: " ").prefix(2).joined(separator: " ")))
        expectDone(chmod(mounted("id"), 0o644))
        #expect(try work.run(["ssh-keygen", "-y", "-f", mounted("id")]).status != 0)
    }

    @Test func pythonMapsFilesIntoMemory() throws {
        let script = """
            import mmap, os
            path = '\(mounted("map"))'
            with open(path, 'w+b') as f:
                f.truncate(300000)
                m = mmap.mmap(f.fileno(), 300000)
                for i in range(0, 300000, 1000):
                    m[i:i + 4] = i.to_bytes(4, 'big')
                m.flush()
                assert open(path, 'rb').read() == m[:]
                f.seek(5000); f.write(b'through write'); f.flush()
                assert m[5000:5013] == b'through write'
                m.close()
            with open(path, 'rb') as f:
                m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
                assert int.from_bytes(m[299000:299004], 'big') == 299000
                assert m[5000:5013] == b'through write'
            """
        try work.done(["python3", "-c", script])
        try mounted.remount()
        try work.done([
            "python3", "-c",
            "import sys; d = open(sys.argv[1], 'rb').read(); assert len(d) == 300000 and d[5000:5013] == b'through write'",
            mounted("map"),
        ])
    }

    @Test func shellsAndCoreutilsWorkAsEverywhere() throws {
        try work.shell(
            """
            cd '\(mounted.path)'
            mkdir -p a/b && echo one >a/x && cp -a a c && diff -r a c && mv c d && cp d/x d/y && echo two >>d/y
            [[ $(cat d/y) == $'one\\ntwo' ]]
            install -m 600 -o 5 -g 6 d/x e && [[ $(stat -c '%a %u %g' e) == '600 5 6' ]]
            ln -sf e l && ln -sfn d l && [[ $(readlink l) == d ]]
            dd if=/dev/zero of=z bs=1M count=4 conv=fsync status=none && [[ $(stat -c %s z) == 4194304 ]]
            mktemp -p . >/dev/null; truncate -s 10 e; touch -r a d; [[ $(stat -c %Y a) == $(stat -c %Y d) ]]
            set -o noclobber; if echo x >e; then exit 1; fi
            flock lock true; find . -newer a -name z | grep -q z; du -s . >/dev/null; df . >/dev/null
            rm -r a d; [[ ! -e a ]]
            """)
    }
}
