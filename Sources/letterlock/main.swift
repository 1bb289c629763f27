import Glibc

ProcessHygiene.apply()
exit(Program.run(CommandLine.arguments).rawValue)
