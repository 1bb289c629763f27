// swift-tools-version: 6.3
import PackageDescription

/// The settings of every room: one language mode, no warning let through, Glibc's GNU names visible.
let house: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
]

func room(_ name: String, _ dependencies: [Target.Dependency] = [], resources: [Resource]? = nil) -> Target {
    .target(
        name: name, dependencies: dependencies, resources: resources,
        cSettings: [.define("_GNU_SOURCE")], swiftSettings: house)
}

func program(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .executableTarget(
        name: name, dependencies: dependencies,
        cSettings: [.define("_GNU_SOURCE")], swiftSettings: house)
}

func tests(_ name: String, _ dependencies: [Target.Dependency], without excluded: [String] = []) -> Target {
    .testTarget(
        name: name, dependencies: dependencies, exclude: excluded,
        cSettings: [.define("_GNU_SOURCE")], swiftSettings: house)
}

let argumentParser: Target.Dependency = .product(name: "ArgumentParser", package: "swift-argument-parser")

let package = Package(
    name: "letterlock",
    products: [.executable(name: "letterlock", targets: ["letterlock"])],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2")
    ],
    targets: [
        .systemLibrary(name: "CSodium", pkgConfig: "libsodium", providers: [.apt(["libsodium-dev"])]),
        .systemLibrary(name: "CFuse", pkgConfig: "fuse3", providers: [.apt(["libfuse3-dev"])]),
        .systemLibrary(name: "CSQLite", pkgConfig: "sqlite3", providers: [.apt(["libsqlite3-dev"])]),
        .target(name: "CLinux", cSettings: [.define("_GNU_SOURCE")]),
        room("Threads"),
        room("Sodium", ["CSodium", "CLinux"]),
        room("Keyring", ["Sodium", "CLinux"]),
        // Loaded when it is needed, and so not linked: see its header.
        .target(name: "CCurl", linkerSettings: [.linkedLibrary("dl")]),
        .target(name: "CCrypto", linkerSettings: [.linkedLibrary("dl")]),
        .target(name: "CPKCS11", linkerSettings: [.linkedLibrary("dl")]),
        .target(name: "CTSS2", cSettings: [.define("_GNU_SOURCE")], linkerSettings: [.linkedLibrary("dl")]),
        room("KeyServices", ["Threads", "Keyring", "Sodium", "CCurl", "CPKCS11", "CTSS2"]),
        room("Storage", ["Threads", "CSQLite", "CLinux"]),
        room("SecretTree", ["Threads", "Keyring", "Storage", "Sodium", "CLinux"]),
        room("Fuse", ["Threads", "CFuse", "CLinux"]),
        room("Access", ["Threads", "Sodium", "CLinux"]),
        room("SecretFS", ["Threads", "SecretTree", "Keyring", "Access", "Fuse", "Sodium", "CLinux"]),
        program(
            "letterlock",
            [
                "SecretFS", "SecretTree", "KeyServices", "Keyring", "Storage", "Access", "Fuse", "Sodium", "Threads",
                "CCrypto", "CLinux", argumentParser,
            ]),
        program("letterlock-bench", ["CLinux", argumentParser]),
        program("serve-alone", ["SecretFS", "SecretTree", "Keyring", "Storage", "Fuse", "Sodium"]),
        .executableTarget(name: "fuse-limit", dependencies: ["CFuse"], cSettings: [.define("_GNU_SOURCE")]),
        tests(
            "SecretTreeTests", ["SecretTree", "Keyring", "Storage", "Sodium", "CLinux"],
            without: ["ExampleStore1", "ExampleStore2"]),
        tests("StorageTests", ["Storage", "CLinux"]),
        tests("FuseTests", ["Fuse", "CLinux"]),
        tests("MountTests", ["SecretTree", "KeyServices", "Keyring", "Storage", "Sodium", "CLinux"]),
        tests("KeyServicesTests", ["KeyServices", "Keyring", "Sodium"]),
        tests("SodiumTests", ["Sodium"]),
        tests("AccessTests", ["Access", "Sodium", "CLinux"]),
        tests("KeyringTests", ["Keyring", "Sodium"]),
        tests("SecretFSTests", ["SecretFS", "SecretTree", "Keyring", "Storage", "Access", "Fuse", "Sodium"]),
    ]
)
