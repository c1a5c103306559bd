//! The notices to WeCom that DeepSeek needs a person, and that it works again.

use super::SIGNATURE;
use crate::outcome::{Outcome, Reason};

/// Why an alert comes without an analysis.
const WHY_PLAIN: [(Reason, &str); 7] = [
    (Reason::Credentials, "DeepSeek API Key 被拒绝"),
    (Reason::Balance, "DeepSeek 账户余额不足"),
    (Reason::Configuration, "DeepSeek 模型或地址配置有误"),
    (Reason::Prompt, "DeepSeek 拒绝分析此内容"),
    (Reason::RateLimited, "DeepSeek 限流"),
    (Reason::Timeout, "DeepSeek 超时"),
    (Reason::DeliveredOverBudget, "今日 token 预算已用完"),
];

/// Failures that only a person can end: what is wrong, and what to do.
const HINTS: [(Reason, &str, &str); 3] = [
    (
        Reason::Credentials,
        "API Key 被拒绝",
        "检查 DEEPSEEK_API_KEY 是否有效;若由 DEEPSEEK_API_KEY_FILE 提供,更新文件即可,无需重启",
    ),
    (Reason::Balance, "账户余额不足", "为 DeepSeek 账户充值,到账后自动恢复"),
    (Reason::Configuration, "模型或地址配置有误", "检查 DEEPSEEK_MODEL 与 DEEPSEEK_BASE_URL,改好后重启本服务"),
];

/// A notice that DeepSeek refuses every request until a person acts: what is wrong, and what to do.
pub(crate) fn analysis_stopped(failure: &Outcome, id: &str) -> String {
    let row = HINTS.iter().find(|(reason, ..)| *reason == failure.reason);
    let (what, hint) = row.map_or(("请求被拒绝", "查看本服务的日志"), |(_, what, hint)| (what, hint));
    let detail = &failure.message;
    format!(
        "⚠️ AI 分析已停用:{what}\n处理办法:{hint}\n恢复前告警不附 AI 分析,原始告警不受影响;\
         10 分钟后由下一个告警自动重试,恢复后会再通知。\n详情:{detail}\n\n{SIGNATURE} {id}"
    )
}

/// A notice that DeepSeek works again.
pub(crate) fn analysis_resumed(id: &str) -> String {
    format!("✅ AI 分析已恢复,后续告警将正常附上分析。\n\n{SIGNATURE} {id}")
}

/// Why an alert comes without an analysis, in Chinese for the message.
pub(crate) fn why_plain(reason: Reason) -> &'static str {
    WHY_PLAIN.iter().find(|(known, _)| *known == reason).map_or("DeepSeek 暂时不可用", |(_, why)| why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notice_fits_one_message_and_names_the_remedy() {
        for (reason, remedy) in [
            (Reason::Credentials, "DEEPSEEK_API_KEY"),
            (Reason::Balance, "充值"),
            (Reason::Configuration, "DEEPSEEK_MODEL"),
        ] {
            let text = analysis_stopped(&Outcome::new(reason, "长".repeat(250)), "#000001");
            assert!(text.contains(remedy) && text.len() <= 2048, "{text}");
        }
    }
}
